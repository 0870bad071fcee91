"""The course of a server's run, as trackers take it: from what the history has, and no more."""

import hashlib
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from wardround.common.monitoring.trackers.course import (
    TOGETHER,
    Course,
    Point,
    State,
    name_of,
    parameters_of,
)
from wardround.server.operators.messages import RunRecord, RunSummary

_MODEL = "federated"  # as a simulation calls it, so that both stand side by side
_KEY_DIGITS = 32
_STATES: dict[str, State] = {"finished": "finished", "failed": "failed", "stopped": "stopped"}


def course_of_record(record: RunRecord, files: Iterable[Path] = ()) -> Course:
    """Return how far a run has come; rounds that are not committed yet are left out.

    Args:
        files: What is kept beside the numbers once it is over.
    """
    summary = record.details.summary
    return Course(
        key=_key_of(summary),
        name=summary.run,
        parameters=parameters_of(tomllib.loads(record.study)),
        tags={
            "wardround.kind": "federation",
            "wardround.digest": summary.digest,
            "wardround.version": record.server,
            "wardround.sites": ", ".join(record.details.sites),
        },
        points=(*_measured(record), *_costs(record)),
        state=_STATES.get(summary.state, "running"),
        files=tuple(files),
    )


def _key_of(summary: RunSummary) -> str:
    text = f"{summary.digest}/{summary.run}/{summary.submitted!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]


def _measured(record: RunRecord) -> Iterator[Point]:
    summary = record.details.summary
    for one in record.measured:
        # What a round measured is written down a moment before the round is committed.
        if one.value is not None and (summary.is_over or one.round < summary.round):
            site = "" if one.site in TOGETHER else one.site
            name = name_of(_MODEL, one.split, one.metric, one.class_name)
            yield Point(site, name, one.round, one.value)


def _costs(record: RunRecord) -> Iterator[Point]:
    done = record.details.summary.round
    for one in record.details.history:
        if one.round <= done:
            whole = {"seconds": one.seconds, "sites": len(one.sites)}
            whole["refusals"] = sum(refusal.times for refusal in one.refusals)
            for what, value in whole.items():
                yield Point("", name_of(_MODEL, "round", what), one.round, float(value))
    for part in record.parts:
        if part.round <= done:
            own = {"bytes_down": part.bytes_down, "bytes_up": part.bytes_up}
            for what, number in {**own, "seconds": part.seconds}.items():
                yield Point(part.site, name_of(_MODEL, "round", what), part.round, float(number))
