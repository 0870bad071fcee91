"""The stages and rounds of a simulated run as spans, from the events in its log."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from wardround.common.files.json_lines import read_json_lines
from wardround.common.monitoring.traces import Span

LOG = "log.jsonl"


@dataclass(slots=True)
class _Stage:
    """A stage that has begun."""

    begin: float
    end: float
    rounds: list[Span] = field(default_factory=list)


def spans_of(run: Path, since: float) -> tuple[Span, ...]:
    """Return a span of what a run did since a time, none if it did nothing.

    Args:
        since: Seconds since 1970; a run that was resumed did other things before.
    """
    stages: dict[str, _Stage] = {}
    last = since
    for moment, facts in _events(run / LOG):
        if moment < since:
            continue
        last = moment
        name = facts.get("stage", "")
        stage = stages.setdefault(name, _Stage(moment, moment))
        stage.end = moment
        if facts.get("event") == "RoundDone":
            stage.rounds.append(_round(moment, facts))
    if not stages:
        return ()
    inside = tuple(
        Span("stage", one.begin, one.end, {"wardround.stage": name}, tuple(one.rounds))
        for name, one in stages.items()
    )
    begin = min(one.begin for one in inside)
    return (Span("simulation", begin, last, {"wardround.run": run.name}, inside),)


def _round(moment: float, facts: Mapping[str, str]) -> Span:
    attributes: dict[str, str | int | float] = {"wardround.round": int(facts["round"])}
    attributes["wardround.updates"] = int(facts["updates"])
    return Span("round", moment - float(facts["seconds"]), moment, attributes)


def _events(log: Path) -> Iterator[tuple[float, dict[str, str]]]:
    """Yield the time and the facts of each event; another line of the log is none."""
    try:
        lines = read_json_lines(log)
    except (OSError, json.JSONDecodeError):
        return
    for line in lines:
        words = str(line.get("what", "")).split(" ")
        facts = dict(word.split("=", 1) for word in words if "=" in word)
        if facts.get("event") in ("StageStarted", "StageFinished", "RoundDone"):
            yield datetime.fromisoformat(str(line["time"])).timestamp(), facts
