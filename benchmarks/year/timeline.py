"""The year as a picture: the models in use, the scanners, and what happened in which week."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from benchmarks.year.calendar import Calendar
from benchmarks.year.diary import Diary, Week
from wardround.common.html.charts import svg
from wardround.common.html.charts.looks import series_colour

WIDTH, _LEFT, _RIGHT = 960.0, 96.0, 12.0
_BAND, _GAP, _TOP = 26.0, 10.0, 8.0
_ROWS = ("model in use", "scanner", "monitoring", "readers", "hospitals")


def draw_timeline(diary: Diary, calendar: Calendar) -> str:
    """Return the picture as SVG: a row a kind, from the first week to the last."""
    step = (WIDTH - _LEFT - _RIGHT) / calendar.weeks
    height = _TOP + len(_ROWS) * (_BAND + _GAP) + 24
    parts = [
        svg.words(name, _LEFT - 10, _y(row) + _BAND / 2 + 4.5, anchor="end")
        for row, name in enumerate(_ROWS)
    ]
    parts += _bands(diary.weeks, 0, step, "model")
    parts += _bands(diary.weeks, 1, step, "scanner")
    parts += _monitoring(diary.weeks, step)
    parts += _happened(diary, step)
    parts += _weeks(calendar, step, height)
    what = f"The year of {calendar.weeks} weeks: models in use, scanners, monitoring, readers."
    return svg.picture("".join(parts), WIDTH, height, what, what)


def _y(row: int) -> float:
    return _TOP + row * (_BAND + _GAP)


def _x(week: int, step: float) -> float:
    return _LEFT + (week - 1) * step


def _bands(weeks: Sequence[Week], row: int, step: float, name: str) -> Iterator[str]:
    names = [*dict.fromkeys(getattr(week, name) for week in weeks)]
    found = [(key, [*some]) for key, some in groupby(weeks, key=lambda week: getattr(week, name))]
    for key, some in found:
        place = names.index(key)
        x, width = _x(some[0].number, step), len(some) * step
        colour = series_colour(place if name == "model" else 4 + place)
        yield svg.element(
            "rect", x=f"{x:.1f}", y=f"{_y(row):.1f}", width=f"{width - 1.5:.1f}",
            height=f"{_BAND:.1f}", rx="2", fill=colour, opacity="0.28",
        )  # fmt: skip
        letters = int(width / svg.LETTER)
        if letters > 2:
            yield svg.words(key, x + 5, _y(row) + _BAND / 2 + 4.5, letters=letters)


def _monitoring(weeks: Sequence[Week], step: float) -> Iterator[str]:
    for week in weeks:
        colour = {"alarm": "var(--bad)", "notice": "var(--soft)"}.get(week.verdict, "var(--rule)")
        tall = {"alarm": 1.0, "notice": 0.55}.get(week.verdict, 0.3) * _BAND
        yield svg.element(
            "rect", svg.element("title", svg.escaped(f"week {week.number}: {week.verdict}")),
            x=f"{_x(week.number, step):.1f}", y=f"{_y(2) + _BAND - tall:.1f}",
            width=f"{step - 1.5:.1f}", height=f"{tall:.1f}", fill=colour,
        )  # fmt: skip


def _happened(diary: Diary, step: float) -> Iterator[str]:
    for row, kind, word in ((3, "readers", "corrections"), (4, "hospital", "")):
        some = [one for one in diary.events if one.kind == kind]
        for week, found in groupby(some, key=lambda one: one.week):
            text = word or " ".join(next(found).text.split()[:2])
            x, y = _x(week, step) + step / 2, _y(row) + _BAND / 2
            yield svg.element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="5", fill="var(--good)")
            yield svg.words(text.rstrip(";,"), x + 9, y + 4.5)


def _weeks(calendar: Calendar, step: float, height: float) -> Iterator[str]:
    every = max(1, round(calendar.weeks / 13))
    for week in range(1, calendar.weeks + 1, every):
        yield svg.words(str(week), _x(week, step) + step / 2, height - 8, anchor="middle")
    yield svg.words("week", _LEFT - 10, height - 8, anchor="end")
