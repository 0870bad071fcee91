"""What the sites' packs of evidence said of a run's model: rows of numbers, beside its history."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from wardround.common.files.atomic import replace_file

EVIDENCE_FILE = "evidence.json"
MOST_ROWS = 20_000
_MOST_PATIENTS = 2**31 - 1  # a larger count is written so: no consortium has as many


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """One number that follows from what left the sites.

    Attributes:
        pack: A key of PACKS; "" of a note.
        site: Whose patients; "all sites" of all together.
        subject: A class, a group, or a range of scores; "" of all.
        metric: What the number is.
        value: None where too few patients are told of.
        low: Where the interval begins; None where it cannot be told. What rounded counts and merged
            cells can lose is in it.
        high: Where it ends.
        lost: How far the value can be off through rounding and merging; 0 where it is exact.
        expected: Of a range of scores: their mean.
        patients: Behind it, as the sites round them; of a range of scores examinations.
        note: In words.
    """

    pack: str
    site: str
    subject: str
    metric: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    lost: float = 0.0
    expected: float | None = None
    patients: int = 0
    note: str = ""


def finite(value: float) -> float | None:
    """Return a number, None for one that is none."""
    return float(value) if math.isfinite(value) else None


def who_tells(told: int, sites: int) -> str:
    """Return who is left out of a number; nothing where every site tells it."""
    if not told:
        return "too few patients"
    return "" if told == sites else f"told by {told} of {sites} sites: too few patients elsewhere"


def write_evidence(folder: Path, rows: Iterable[EvidenceRow], durable: bool = True) -> None:
    """Write the rows of a run; a reader sees all of them or those before."""
    counted = (replace(row, patients=min(row.patients, _MOST_PATIENTS)) for row in rows)
    lines = [json.dumps(asdict(row), allow_nan=False) for row in counted]
    text = "[\n" + ",\n".join(lines) + "\n]\n"
    replace_file(folder / EVIDENCE_FILE, text.encode(), durable=durable)


def read_evidence(folder: Path) -> tuple[EvidenceRow, ...]:
    """Return the rows of a run; none where it has none, or its file is damaged."""
    try:
        content = json.loads((folder / EVIDENCE_FILE).read_text(encoding="utf-8"))
        return tuple(EvidenceRow(**row) for row in content[:MOST_ROWS])
    except (OSError, ValueError, TypeError):
        return ()
