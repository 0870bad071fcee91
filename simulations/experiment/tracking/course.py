"""The course of a run folder, from the files that the run leaves: nothing is asked of the run."""

import json
import math
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from wardround.common.errors import InputError
from wardround.common.files.tables import read_table
from wardround.common.monitoring.trackers.course import (
    KEPT_STEP,
    TOGETHER,
    Course,
    Point,
    State,
    name_of,
    parameters_of,
)
from wardround.server.checkpoints.history import RoundRecord, read_records
from wardround.simulations.experiment.rows import history_rows
from wardround.simulations.run_files.folder import (
    FEDERATED,
    POOLED,
    MetricRow,
    PrivacyRow,
    RunFacts,
    read_facts,
)
from wardround.simulations.run_files.series import is_series

_STATES: dict[str, State] = {"interrupted": "stopped", "running": "running"}
_STATES |= {"finished": "finished", "failed": "failed"}
_KEPT = ("report.html", "study.toml", "metrics.csv")
_DOCUMENTS = ("model-card", "data-sheet")
_MODEL = Path("models") / f"{FEDERATED}.safetensors"
_RUNS, _CHECKPOINTS, _HISTORY = "runs", "checkpoints", "history.jsonl"


def runs_in(folder: Path) -> list[Path]:
    """Return the run folders of a run, which is one itself, or of a series."""
    if is_series(folder):
        return sorted(path for path in (folder / _RUNS).glob("*") if (path / "run.json").is_file())
    return [folder] if (folder / "run.json").is_file() else []


def fingerprint(run: Path) -> tuple[tuple[int, int], ...]:
    """Return what changes when a run has come further."""
    files = [run / "run.json", *sorted((run / _CHECKPOINTS).glob(f"*/{_HISTORY}"))]
    states = (path.stat() for path in files if path.exists())
    return tuple((one.st_mtime_ns, one.st_size) for one in states)


def course_of(run: Path, series: str = "") -> Course | None:
    """Return how far a run has come; None before its first commit.

    Args:
        series: The name of the series that it is a run of.

    Raises:
        InputError: The folder holds no run.
    """
    key = _key_of(run)
    if key is None:
        return None
    facts = read_facts(run)
    points = (*_points(run, facts), *_privacy(run))
    return Course(
        key=key,
        name=f"{series}-{run.name}" if series else run.name,
        parameters=parameters_of(_study_of(run)),
        tags=_tags(facts, series),
        points=tuple(point for point in points if math.isfinite(point.value)),
        state=_STATES[facts.status],
        files=(*(run / name for name in (*_KEPT, _MODEL)), *_documents(run)),
    )


def _key_of(run: Path) -> str | None:
    """Return the 128 random bits that a run's first commit gave it, which it keeps for good."""
    for state in sorted((run / _CHECKPOINTS / FEDERATED).glob("round-*/state.json")):
        try:
            return str(json.loads(state.read_text(encoding="utf-8"))["run"])
        except (OSError, ValueError, KeyError, TypeError):  # it is being replaced
            continue
    return None


def _documents(run: Path) -> Iterator[Path]:
    for name in _DOCUMENTS:
        yield (run / name).with_suffix(".md")


def _study_of(run: Path) -> dict[str, object]:
    try:
        return tomllib.loads((run / "study.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{run}/study.toml cannot be read ({type(error).__name__}): start a new run."
        raise InputError(msg) from None


def _tags(facts: RunFacts, series: str) -> dict[str, str]:
    tags = {
        "wardround.kind": "simulation",
        "wardround.digest": facts.digest,
        "wardround.version": facts.wardround,
        "wardround.seed": str(facts.seed),
    }
    if series:
        tags["wardround.series"] = series
    return tags | {f"wardround.environment.{key}": text for key, text in facts.environment.items()}


def _points(run: Path, facts: RunFacts) -> Iterator[Point]:
    histories = {
        path.parent.name: read_records(path)
        for path in sorted((run / _CHECKPOINTS).glob(f"*/{_HISTORY}"))
    }
    table = run / "metrics.csv"
    if facts.status != "running" and table.exists():
        try:
            rows: Sequence[MetricRow] = read_table(table, MetricRow)
        except (ValueError, TypeError, KeyError):
            rows = ()
        yield from map(_as_point, rows)
    else:
        for model, records in histories.items():
            yield from map(_as_point, history_rows(model, records))
    for model, records in histories.items():
        yield from _costs(model, records)


def _as_point(row: MetricRow) -> Point:
    site = "" if row.site in TOGETHER else row.site
    return Point(
        site, name_of(row.model, row.split, row.metric, row.class_name), row.round, row.value
    )


def _costs(model: str, records: Iterable[RoundRecord]) -> Iterator[Point]:
    """Yield what each round took, of all sites and of each."""
    for record in records:
        if record.sites or record.refusals:
            whole = {"seconds": record.seconds, "sites": len(record.sites)}
            whole["refusals"] = len(record.refusals)
            yield from _named("", model, record.round, whole)
        for site in record.sites:
            if site.site == POOLED:  # no hospital
                continue
            own = {"seconds": site.seconds, "training_loss": site.training_loss}
            own |= {"bytes_down": site.bytes_down, "bytes_up": site.bytes_up}
            yield from _named(site.site, model, record.round, own | {"updates": site.updates})


def _named(site: str, model: str, number: int, values: dict[str, float]) -> Iterator[Point]:
    for what, value in values.items():
        yield Point(site, name_of(model, "round", what), number, float(value))


def _privacy(run: Path) -> Iterator[Point]:
    try:
        rows = read_table(run / "privacy.csv", PrivacyRow)
    except (ValueError, TypeError, KeyError):
        return
    for row in rows:
        for what, value in (("epsilon", row.epsilon), ("cap", row.cap)):
            yield Point(row.site, name_of("privacy", row.part, what), KEPT_STEP, value)
