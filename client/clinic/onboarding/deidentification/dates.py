"""Dates and times moved by an offset: DA, TM and DT of DICOM (PS3.5 table 6.2-1)."""

import re
from datetime import datetime, timedelta

_DATE = re.compile(r"(\d{4})[.\-]?(\d{2})[.\-]?(\d{2})")
_TIME = re.compile(r"(\d{2})(?::?(\d{2})(?::?(\d{2})(\.\d{1,6})?)?)?")
_DATE_TIME = re.compile(r"(\d{4,14})(\.\d{1,6})?([+-]\d{4})?")
_DIGITS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_ANY_DAY = datetime(2000, 1, 15)


def shift_date(text: str, seconds: int, time: str = "") -> str:
    """Return a DA moved by seconds; "" where it is no date.

    Args:
        time: The TM that belongs to it, so that midnight is crossed where it should be; noon
            stands for one that is not there.
    """
    date = _parsed_date(text)
    if date is None:
        return ""
    clock = _clock(time)
    moved = _moved(date + (timedelta(hours=12) if clock is None else clock), seconds)
    return "" if moved is None else moved.strftime("%Y%m%d").zfill(8)


def shift_time(text: str, seconds: int) -> str:
    """Return a TM moved by seconds, as precise as it was; "" where it is no time."""
    found, clock = _TIME.fullmatch(text.strip()), _clock(text)
    if found is None or clock is None:
        return ""
    moved = _ANY_DAY + clock + timedelta(seconds=seconds)
    if found[4]:
        return f"{moved:%H%M%S}.{moved.microsecond:06d}"
    return f"{moved:%H%M%S}"


def shift_date_time(text: str, seconds: int) -> str:
    """Return a DT moved by seconds, as precise as it was, in its own zone; "" if it is none."""
    found = _DATE_TIME.fullmatch(text.strip())
    form = _DIGITS.get(len(found[1])) if found else None
    if found is None or form is None:
        return ""
    try:
        moment = datetime.strptime(found[1], form)
    except ValueError:
        return ""
    moved = _moved(moment, seconds)
    if moved is None:
        return ""
    return moved.strftime(form).zfill(len(found[1])) + (found[2] or "") + (found[3] or "")


def day_number(text: str) -> int | None:
    """Return a DA as a count of days, None where it is no date."""
    date = _parsed_date(text)
    return None if date is None else date.toordinal()


def _parsed_date(text: str) -> datetime | None:
    found = _DATE.fullmatch(text.strip())
    if found is None:
        return None
    try:
        return datetime(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        return None


def _clock(text: str) -> timedelta | None:
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.groups()[:3])
    if hours > 23 or minutes > 59 or seconds > 60:
        return None
    return timedelta(hours=hours, minutes=minutes, seconds=seconds + float(found[4] or 0))


def _moved(moment: datetime, seconds: int) -> datetime | None:
    try:
        return moment + timedelta(seconds=seconds)
    except OverflowError:
        return None
