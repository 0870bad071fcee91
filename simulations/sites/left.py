"""``left.csv``: who left a run that this one repeats, or goes on from; they never come back.

The data set of a simulation still has them. A hospital's manifest would not.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from wardround.common.files.tables import read_kept_table, write_table

LEFT = "left.csv"


@dataclass(frozen=True, slots=True)
class LeftRow:
    """A site that left, or a patient of one.

    Attributes:
        patient: As the data set calls him; "" where the whole site left.
    """

    site: str
    patient: str


@dataclass(frozen=True, slots=True)
class Left:
    """Who left a run folder's line of runs."""

    sites: Collection[str] = frozenset()
    patients: Collection[str] = frozenset()


def write_left(folder: Path, rows: Iterable[LeftRow]) -> None:
    """Write who left; no file for nobody."""
    found = tuple(dict.fromkeys(rows))
    if found:
        write_table(folder / LEFT, found, LeftRow)


def left_rows(folder: Path) -> tuple[LeftRow, ...]:
    """Return the rows of a run folder; none where nobody left.

    Raises:
        InputError: The file is damaged.
    """
    return tuple(read_kept_table(folder / LEFT, LeftRow))


def read_left(folder: Path) -> Left:
    """Return who left.

    Raises:
        InputError: The file is damaged.
    """
    rows = left_rows(folder)
    return Left(
        frozenset(row.site for row in rows if not row.patient),
        frozenset(row.patient for row in rows if row.patient),
    )
