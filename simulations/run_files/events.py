"""What a simulation tells whoever watches it (a progress bar, a test), and the log of that.

``log.jsonl`` has one line an event. Of an exception only its type and its places in the code are
kept: its text may quote what a patient's file is called or holds.
"""

import json
import logging
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from wardround.common.runtime.fields import of_its_types

_ROOT = logging.getLogger("wardround")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A part of the work begins.

    Attributes:
        stage: ``data``, ``federated``, ``local-SITE``, ``pooled``, ``test`` or ``report``.
        rounds: How many rounds it has; 0 where it has none.
        done: How many of them an earlier try has done.
    """

    stage: str
    rounds: int = 0
    done: int = 0


@dataclass(frozen=True, slots=True)
class StageFinished:
    """A part of the work is done."""

    stage: str


@dataclass(frozen=True, slots=True)
class RoundDone:
    """A round was committed.

    Attributes:
        value: The study's metric of the model that the round started from; NaN if not measured.
    """

    stage: str
    round: int
    rounds: int
    metric: str
    value: float
    updates: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SiteFailed:
    """A site did not contribute to a round."""

    stage: str
    round: int
    site: str
    reason: str


Event = StageStarted | StageFinished | RoundDone | SiteFailed
Watch = Callable[[Event], None]
LOG_FILE = "log.jsonl"
_KINDS: dict[str, type[Event]] = {
    kind.__name__: kind for kind in (StageStarted, StageFinished, RoundDone, SiteFailed)
}
_TITLES = {
    "data": "reading and splitting the data",
    "federated": "training together",
    "pooled": "training on pooled data",
    "without-privacy": "training together without privacy",
    "test": "testing every model on every site",
    "report": "writing the report",
    "server": "starting the server",
    "joining": "sites join over TLS",
    "sites": "starting the sites",
    "federation": "training together",
}


def title_of(stage: str) -> str:
    """Return how a person calls a stage."""
    run, slash, stage_of_run = stage.partition("/")
    if slash:  # of a series
        return f"{run}: {title_of(stage_of_run)}"
    site = stage.removeprefix("local-")
    return _TITLES.get(stage, f"{site} training alone")


def nobody(event: Event) -> None:
    """Watch nothing."""


@contextmanager
def recording(run_folder: Path, watch: Watch) -> Iterator[Watch]:
    """Keep what wardround logs in the run folder, and yield a watch that logs its events too."""
    level, propagate = _ROOT.level, _ROOT.propagate
    handler = _write_to(run_folder / LOG_FILE)

    def tell(event: Event) -> None:
        facts = " ".join(f"{key}={value}" for key, value in asdict(event).items())
        logger.info("event=%s %s", type(event).__name__, facts, extra={"event": event})
        watch(event)

    try:
        yield tell
    finally:
        _ROOT.removeHandler(handler)
        _ROOT.setLevel(level)
        _ROOT.propagate = propagate
        handler.close()


def read_event(line: Mapping[str, object]) -> Event | None:
    """Return the event that a line of the log tells; None for another line."""
    told = line.get("event")
    if not isinstance(told, dict):
        return None
    kind = _KINDS.get(str(told.get("kind")))
    if kind is None:
        return None
    content = {key: value for key, value in told.items() if key != "kind"}
    if kind is RoundDone and content.get("value") is None:
        content["value"] = math.nan
    try:
        return of_its_types(kind(**content))
    except (TypeError, ValueError):
        return None


def open_log() -> Path | None:
    """Return the log that this process writes; None outside of a run."""
    files = (handler for handler in _ROOT.handlers if isinstance(handler, logging.FileHandler))
    return next((Path(handler.baseFilename) for handler in files), None)


def continue_log(path: Path | None) -> None:
    """Write on in a log of the process that started this one, where a fork has not done so."""
    if path is not None and open_log() is None:
        _write_to(path)


def _write_to(path: Path) -> logging.Handler:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_AsLine())
    _ROOT.addHandler(handler)
    _ROOT.setLevel(logging.INFO)
    _ROOT.propagate = False  # the terminal belongs to the progress bars and to refusals
    return handler


class _AsLine(logging.Formatter):
    """One record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "where": record.name,
            "what": record.getMessage(),
        }
        event = getattr(record, "event", None)
        if isinstance(event, Event):
            line["event"] = {"kind": type(event).__name__, **_finite(asdict(event))}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["places"] = [
                f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(record.exc_info[2])
            ]
        return json.dumps(line)


def _finite(content: dict[str, object]) -> dict[str, object]:
    """Return content with null for what is not a number, as JSON has no NaN."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in content.items()
    }
