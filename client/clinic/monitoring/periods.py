"""Periods of a calendar: a day, a week as ISO 8601 counts them, a month."""

import re
from collections.abc import Mapping
from datetime import date
from typing import Literal, get_args

from wardround.common.errors import InputError, known_names

Every = Literal["day", "week", "month"]
EVERY: tuple[Every, ...] = get_args(Every)
PERIODS_A_YEAR: Mapping[str, int] = {"day": 365, "week": 52, "month": 12}
_FORMS = {
    "day": (r"\d{4}-\d{2}-\d{2}", "2026-11-29"),
    "week": (r"\d{4}-W\d{2}", "2026-W48"),
    "month": (r"\d{4}-\d{2}", "2026-11"),
}


def every_named(text: str) -> Every:
    """Return the kind of period with a name.

    Raises:
        InputError: There is none.
    """
    for known in EVERY:
        if text == known:
            return known
    raise InputError(known_names("length of a period", text, EVERY))


def period_of(day: date, every: Every) -> str:
    """Return the name of the period that a day lies in; names sort by time."""
    if every == "week":
        year, week, _ = day.isocalendar()
        return f"{year}-W{week:02d}"
    return day.isoformat() if every == "day" else f"{day:%Y-%m}"


def first_day(period: str, every: Every) -> date:
    """Return the first day of a period.

    Raises:
        InputError: The text names no period of this kind.
    """
    form, example = _FORMS[every]
    try:
        if not re.fullmatch(form, period, re.ASCII):  # names sort by time
            raise ValueError
        if every == "week":
            return date.fromisocalendar(int(period[:4]), int(period[6:]), 1)
        return date.fromisoformat(period if every == "day" else f"{period}-01")
    except ValueError:
        msg = f"{period[:40]!r} is no {every}: write it as {example}."
        raise InputError(msg) from None


def next_period(period: str, every: Every) -> str:
    """Return the name of the period after one."""
    day = first_day(period, every)
    step = {"day": 1, "week": 7, "month": 32}[every]
    return period_of(date.fromordinal(day.toordinal() + step), every)
