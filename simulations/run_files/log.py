"""``log.jsonl``: one line an event of a run.

Of an exception only its type and its places in the code are kept: its text may quote what a
patient's file is called or holds.
"""

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from wardround.simulations.run_files.events import Event, Watch

_ROOT = logging.getLogger("wardround")
logger = logging.getLogger(__name__)


@contextmanager
def recording(run_folder: Path, watch: Watch) -> Iterator[Watch]:
    """Keep what wardround logs in the run folder, and yield a watch that logs its events too."""
    level, propagate = _ROOT.level, _ROOT.propagate
    handler = _write_to(run_folder / "log.jsonl")

    def tell(event: Event) -> None:
        facts = " ".join(f"{key}={value}" for key, value in asdict(event).items())
        logger.info("event=%s %s", type(event).__name__, facts)
        watch(event)

    try:
        yield tell
    finally:
        _ROOT.removeHandler(handler)
        _ROOT.setLevel(level)
        _ROOT.propagate = propagate
        handler.close()


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
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["places"] = [
                f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(record.exc_info[2])
            ]
        return json.dumps(line)
