"""When an examination was made: for intervals between examinations of one patient."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from wardround.client.data.reading.dicom.files import first_header

_OF_DAY = ("Study", "Series", "Acquisition", "Content")
_TAGS = [f"{name}{part}" for name in _OF_DAY for part in ("Date", "Time")]


def examination_date(path: Path) -> datetime | None:
    """Return when a DICOM file, or the series in a folder, was made; None if it does not say.

    Two of them give an interval by subtraction. A date stays at the site: only what is worked out
    from intervals may leave it. Reads the first header of a folder, and no pixels.
    """
    try:
        dataset = first_header(path, [*_TAGS, "AcquisitionDateTime"])
    except Exception:  # a damaged file has no date; whoever reads its pixels says so
        return None
    if dataset is None:
        return None
    for name in _OF_DAY:
        found = moment_of(dataset.get(f"{name}Date"), dataset.get(f"{name}Time") or "0000")
        if found is not None:
            return found
    return moment(dataset.get("AcquisitionDateTime"))


def moment(text: Any) -> datetime | None:
    """Return a date and time written as 20260131083000.000000+0100; the offset is left out."""
    digits = str(text or "").split("+")[0].split("-")[0].strip()
    return moment_of(digits[:8], digits[8:])


def moment_of(date: Any, time: Any) -> datetime | None:
    """Return the moment of a date (20260131) and a time (083000.5, with colons of old files)."""
    day = str(date or "").replace(".", "").strip()[:8]
    clock = str(time or "").replace(":", "").strip()
    whole, _, fraction = clock.partition(".")
    if len(day) != 8 or not whole.isdecimal() or len(whole) < 2:
        return None
    try:
        at = datetime.strptime(day + whole.ljust(6, "0")[:6], "%Y%m%d%H%M%S")
    except ValueError:
        return None
    seconds = float(f"0.{fraction}") if fraction.isdecimal() else 0.0
    return at + timedelta(seconds=seconds)
