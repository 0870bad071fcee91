"""What happened in each round, as one line of JSON a round, appended and never rewritten."""

import json
import time
from dataclasses import dataclass, fields
from pathlib import Path

from wardround.common.errors import RunError
from wardround.common.files.json_lines import read_json_lines
from wardround.common.metrics.task_sums import MetricValue

TRAINING = "training"


@dataclass(frozen=True, slots=True)
class SiteRecord:
    """One site's part in a round."""

    site: str
    examinations: int
    updates: int
    seconds: float
    bytes_down: int
    bytes_up: int
    training_loss: float


@dataclass(frozen=True, slots=True)
class RefusalRecord:
    """A site that did not contribute to a round, and why.

    Attributes:
        asked: What it was asked for: ``training``, or an evaluation on a split's patients.
    """

    site: str
    reason: str
    asked: str = TRAINING


@dataclass(frozen=True, slots=True)
class Measurement:
    """Metric values of one model on one site's patients, or on all sites' merged."""

    site: str
    split: str
    values: tuple[MetricValue, ...]


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One round.

    Attributes:
        round: The round that was trained, from 1. After the last one a closing record with no
            sites holds the measurements of the last model.
        measured_round: Which model the measurements are about (0 is the initial one).
    """

    round: int
    measured_round: int
    seconds: float
    sites: tuple[SiteRecord, ...] = ()
    refusals: tuple[RefusalRecord, ...] = ()
    measurements: tuple[Measurement, ...] = ()


def append_record(path: Path, record: RoundRecord) -> int:
    """Append a record and return the file's length in bytes after it."""
    line = {**_as_json(record), "written_at": time.time()}  # no round depends on it
    with path.open("ab") as stream:
        stream.write(json.dumps(line, default=_as_json).encode() + b"\n")
        stream.flush()
        return stream.tell()


def read_records(path: Path) -> list[RoundRecord]:
    """Read all records; an absent file holds none, a torn last line is left out.

    Raises:
        RunError: It cannot be read, or a line is no record.
    """
    try:
        return [record_of(line) for line in read_json_lines(path)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        msg = (
            f"{path} cannot be read, or is not as the run wrote it: put the run's folder back "
            "from a backup."
        )
        raise RunError(msg) from None


def heard_in(record: RoundRecord) -> set[str]:
    """Return the sites whose numbers are in a round: an update of theirs, or a measurement."""
    return {one.site for one in record.sites} | {one.site for one in record.measurements}


def truncate(path: Path, length: int) -> None:
    """Cut the file back to the length that a commit vouches for."""
    if path.exists() and path.stat().st_size > length:
        with path.open("r+b") as stream:
            stream.truncate(length)


def _as_json(row: object) -> dict[str, object]:
    # Not dataclasses.asdict, which copies every value on the way.
    return {f.name: getattr(row, f.name) for f in fields(row)}  # type: ignore[arg-type] # our rows


def record_of(content: dict) -> RoundRecord:  # type: ignore[type-arg] # JSON, typed just below
    """Return the record of a line of the file.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    return RoundRecord(
        round=int(content["round"]),
        measured_round=int(content["measured_round"]),
        seconds=float(content["seconds"]),
        sites=tuple(SiteRecord(**site) for site in content["sites"]),
        refusals=tuple(RefusalRecord(**refusal) for refusal in content["refusals"]),
        measurements=tuple(
            Measurement(m["site"], m["split"], tuple(MetricValue(**v) for v in m["values"]))
            for m in content["measurements"]
        ),
    )
