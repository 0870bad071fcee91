"""Names of patients that look alike: is it one patient under two names?

Two names that differ in capitals, blanks, or in letters of another alphabet that look the same; and
numbers that a spreadsheet has changed: 007 and 7, 1E5 and 100000.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from wardround.client.data.manifest.examination import Examination

_LIKE_LATIN = str.maketrans(
    # Cyrillic and Greek letters, in small letters, that look like a Latin one in either case.
    "авезкмнорстухіјѕһԁԛԝαβεζηικμνορτυχϲ‐‑‒–—−",
    "abe3kmhopctyxijshdqwabezhikmvoptyxc------",
)
_NUMBER = re.compile(r"0*(\d+?)([.,]0+)?")
# Months as a spreadsheet writes them: English, German, French, Spanish, Italian, Dutch.
_MONTH = (
    "(?:jan|ene|gen|feb|fev|fév|mar|mär|mrz|mrt|apr|abr|avr|may|mai|mag|mei|jun|giu|jul|lug|aug"
    "|ago|aoû|sep|set|oct|okt|ott|nov|dec|dez|dic|déc)"
)
_DATE = re.compile(
    rf"\d{{1,2}}[-. ]{_MONTH}([-. ]\d{{2,4}})?|{_MONTH}-\d{{2,4}}"
    r"|\d{1,2}[./]\d{1,2}[./]\d{2,4}|\d{4}-\d{2}-\d{2} 00:00(:00)?",
    re.IGNORECASE,
)
_POWER = re.compile(r"0*(\d)e\+?(\d{1,2})")


def skeleton(name: str) -> str:
    """Return what two names share that look alike."""
    letters = unicodedata.normalize("NFKC", name).casefold().translate(_LIKE_LATIN)
    letters = "".join(letters.split()).lstrip("'’`")  # how a spreadsheet is told that it is text
    if not letters.isascii():
        return letters
    if power := _POWER.fullmatch(letters):
        return power[1] + "0" * int(power[2])
    number = _NUMBER.fullmatch(letters)
    return number[1] if number else letters


def look_alikes(names: Iterable[str]) -> list[set[str]]:
    """Return groups of different names that look alike."""
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(skeleton(name), set()).add(name)
    return [group for group in groups.values() if len(group) > 1]


def rows_of_look_alikes(
    examinations: Sequence[Examination],
) -> tuple[list[int], list[int]]:
    """Return the rows of patients whose names look alike, a row a name.

    Returns:
        Those of groups that are in different splits, and the others.
    """
    first: dict[str, Examination] = {}
    for examination in examinations:
        first.setdefault(examination.patient, examination)
    apart: list[int] = []
    together: list[int] = []
    for group in look_alikes(name for name in first if name):
        held = [first[name] for name in group]
        rows = [one.row for one in held]
        (apart if len({one.split for one in held}) > 1 else together).extend(rows)
    return sorted(apart), sorted(together)


def rows_of_dates(examinations: Sequence[Examination]) -> list[int]:
    """Return the rows whose patient is a date, where other patients are none.

    A spreadsheet makes 12-Mar of the name 3-12, and of MAR12.
    """
    rows = [one.row for one in examinations if _DATE.fullmatch(one.patient)]
    return rows if len(rows) < len(examinations) else []
