"""What a data check finds: sentences with rows, and tables of counts; nothing names a patient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wardround.client.data.manifest.rows import name_rows

Status = Literal["ok", "look", "fault"]
_ROWS_SAID = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for.

    Attributes:
        name: What was looked for.
        status: "ok"; "look": a person should; "fault": training would be wrong, or be refused.
        fact: What was found.
        remedy: What to do; "" where nothing is to be done.
        rows: Of the manifest, as a spreadsheet counts them.
    """

    name: str
    status: Status
    fact: str
    remedy: str = ""
    rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """A table of counts, drawn as bars.

    Attributes:
        parts: What each bar is made of.
        bars: A name, and a number for each part.
    """

    title: str
    parts: tuple[str, ...]
    bars: tuple[tuple[str, tuple[float, ...]], ...]
    unit: str = "examinations"


@dataclass(frozen=True, slots=True)
class Suspect:
    """An examination whose label a model of the site's own would not give it.

    Attributes:
        labelled: What the manifest says, and how probable the model finds it.
        suggested: What the model says instead, and how probable it finds that.
    """

    row: int
    labelled: tuple[str, float]
    suggested: tuple[str, float]


@dataclass(frozen=True, slots=True)
class DataReport:
    """What one look at a site's data found.

    Attributes:
        made: When, in UTC.
        study: The study's name; "" where the manifest was looked at without one.
        digest: Of the study.
    """

    site: str
    made: str
    study: str
    digest: str
    examinations: int
    patients: int
    findings: tuple[Finding, ...]
    counts: tuple[Counts, ...]
    suspects: tuple[Suspect, ...]

    @property
    def has_faults(self) -> bool:
        """Whether training would be wrong, or be refused."""
        return any(finding.status == "fault" for finding in self.findings)


def said(rows: Sequence[int]) -> str:
    """Return "in row 7", or the first ten rows and how many more."""
    return f"in {name_rows(sorted(set(rows)), _ROWS_SAID)}"


def found(
    name: str, status: Status, fact: str, remedy: str = "", rows: Sequence[int] = ()
) -> Finding:
    """Return a finding whose fact names its rows."""
    distinct = tuple(sorted(set(rows)))
    return Finding(
        name, status, f"{fact}, {said(distinct)}" if distinct else fact, remedy, distinct
    )
