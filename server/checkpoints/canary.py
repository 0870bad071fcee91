"""What a canary round found: a row a site and stage, in the folder of its run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from wardround.common.files.atomic import replace_file

CANARY_FILE = "canary.json"
OK, FAILS, NOTE, UNTRIED = "ok", "would fail", "to know", "not tried"
TOGETHER = "the server"  # of rows that are about all sites


@dataclass(frozen=True, slots=True)
class CanaryRow:
    """How one stage went at one site.

    Attributes:
        state: ``ok``, ``would fail``, ``to know`` (nothing fails over it), or ``not tried``.
        fact: What is wrong, or why it was not tried; nothing of a patient.
        remedy: What to do, and who.
    """

    site: str
    stage: str
    state: str
    fact: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """What a canary round found.

    Attributes:
        rounds: Of the study.
        round_seconds: At most, of the slowest site, as far as that is said; None if nobody says it.
        study_seconds: Of the whole study, at most; None if that is not known.
        bytes_of_a_site: That a site receives and sends in all rounds; 0 if no model was carried.
    """

    rows: tuple[CanaryRow, ...]
    rounds: int
    round_seconds: float | None = None
    study_seconds: float | None = None
    bytes_of_a_site: int = 0

    @property
    def fails(self) -> bool:
        """Whether something would fail."""
        return any(row.state == FAILS for row in self.rows)


def is_canary(folder: Path) -> bool:
    """Return whether a run's folder is that of a canary round."""
    return (folder / CANARY_FILE).exists()


def mark_canary(folder: Path) -> None:
    """Say that a run is a canary round: it trains nothing and keeps no model."""
    replace_file(folder / CANARY_FILE, b"{}\n")


def write_canary(folder: Path, report: CanaryReport) -> None:
    """Write what was found; a reader sees all of it."""
    replace_file(folder / CANARY_FILE, (json.dumps(asdict(report)) + "\n").encode())


def read_canary(folder: Path) -> CanaryReport | None:
    """Return what was found; None before the end, and of a run that is no canary round."""
    try:
        content = json.loads((folder / CANARY_FILE).read_text(encoding="utf-8"))
        rows = tuple(CanaryRow(**row) for row in content.pop("rows"))
        return CanaryReport(rows=rows, **content)
    except (OSError, ValueError, KeyError, TypeError):
        return None
