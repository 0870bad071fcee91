"""The report of the year: a page with a time line that one reads in two minutes."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby

from benchmarks.year.calendar import Calendar
from benchmarks.year.diary import Diary, Kind, Week
from benchmarks.year.hospitals import FOLLOWED, WEEKLY
from benchmarks.year.timeline import draw_timeline
from wardround.common.html import read_style
from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.figure import line_figure
from wardround.common.html.charts.line_chart import LineChart, Point, Series
from wardround.common.html.charts.looks import Look, series_colour
from wardround.common.html.parts import Html, bullets, facts, joined, section, table, tag

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = "figure.chart.year { max-width: none; } td.text { white-space: normal; }"
_KINDS: dict[Kind, str] = {
    "model": "model",
    "scanner": "scanner",
    "alarm": "alarm",
    "readers": "readers",
    "hospital": "hospital",
}


def page_of(diary: Diary, calendar: Calendar) -> str:
    """Return the page as HTML that holds all it shows."""
    main = joined(
        (
            section("The year in a picture", _timeline(diary, calendar), anchor="picture"),
            section("What happened", _events(diary), anchor="events"),
            section("How well the model did", _metric(diary, calendar), anchor="metric"),
            section("What left the hospital", *_left(diary), anchor="left"),
            section("What had to be so", _expected(diary), anchor="expected"),
            section("How it was done", *_how(diary), anchor="how"),
        )
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>A year in a hospital</title>\n<style>{read_style()}{_STYLE}</style>\n"
        f"</head>\n<body>\n{_head(diary, calendar)}\n<main>\n{main}</main>\n"
        '<footer><p class="small">Simulated hospitals. For research; not a medical device.</p>'
        "</footer>\n</body>\n</html>\n"
    )


def _head(diary: Diary, calendar: Calendar) -> Html:
    unmet = diary.unmet
    said = "The year went as it should" if not unmet else f"Not as it should be: {unmet[0]}"
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    alarms = [week.number for week in diary.weeks if week.verdict == "alarm"]
    seen = sum(week.images for week in diary.weeks)
    left = sum(row[3] for row in diary.left)
    lines = (
        f"{calendar.weeks} weeks, {seen} images. A new scanner in week {calendar.scanner}; alarm "
        f"in week {', '.join(map(str, alarms)) or 'none'}.",
        f"{_megabytes(left)} left the hospital, all of it numbers of models "
        "and sums; no image, no name.",
    )
    headline = tag(
        "div",
        joined((tag("h2", said), *(tag("p", line) for line in lines))),
        class_=f"headline {'bad' if unmet else 'good'}",
    )
    return joined(
        (
            Html("<header>"),
            tag("p", "Wardround", class_="kicker"),
            tag("h1", f"A year at the hospital {FOLLOWED}"),
            tag("p", f"{calendar.period(1)} to {calendar.period(calendar.weeks)}; written {made} "
                "(UTC).", class_="byline"),
            headline,
            Html("</header>"),
        )
    )  # fmt: skip


def _timeline(diary: Diary, calendar: Calendar) -> Html:
    told = (
        "Of the monitoring: a tall mark is an alarm, a lower dark one a week that is worth a look."
        f" {WEEKLY} images a week."
    )
    drawn = Html(draw_timeline(diary, calendar))
    return tag("figure", joined((drawn, tag("figcaption", told))), class_="chart year")


def _events(diary: Diary) -> Html:
    rows, last = list[tuple[str, str, str]](), 0
    for one in diary.events:
        rows.append((f"week {one.week}" if one.week != last else "", _KINDS[one.kind], one.text))
        last = one.week
    caption = "In the other weeks nothing had to be done."
    return table(caption, ("", "", "what"), rows, texts=(1, 2))


def _metric(diary: Diary, calendar: Calendar) -> Html:
    figure = line_figure(_chart(diary, calendar))
    rows = [
        (
            name,
            _from_to([week.number for week in some]),
            scanner,
            f"{_mean([week.auroc for week in some]):.3f}",
            f"{_mean([week.accuracy for week in some]):.3f}",
        )
        for name, chosen in _times(diary.weeks)
        for scanner, some in _by_scanner(chosen)
    ]
    head = ("model", "weeks", "scanner", "AUROC", "accuracy")
    numbers = table("Means of the weeks.", head, rows, words=(1, 2))
    return tag(
        "div", joined((Html("" if figure is None else figure.html), numbers)), class_="charts"
    )


def _from_to(weeks: Sequence[int]) -> str:
    return str(weeks[0]) if len(weeks) == 1 else f"{weeks[0]}\u2013{weeks[-1]}"


def _chart(diary: Diary, calendar: Calendar) -> LineChart:
    names = [*dict.fromkeys(week.model for week in diary.weeks)]
    series: list[Series] = []
    for name, some in _times(diary.weeks):
        place = names.index(name)
        colour, legend = series_colour(place), f"model: {name}"
        points = tuple(Point(week.number, week.auroc, note=week.scanner) for week in some)
        series.append(Series(name, points, Look(colour, place, 1.6, "none"), place, legend))
        mean = _mean([week.auroc for week in some])
        ends = tuple(Point(at, mean) for at in (some[0].number - 0.4, some[-1].number + 0.4))
        line = Look(colour, None, 2.4, "solid")
        series.append(Series(f"{name}, mean", ends, line, place, legend))
    title = (
        f"AUROC of the model in use on each week's {WEEKLY} patients of {FOLLOWED}, by labels that "
        "came later; lines are means while it was in use. Upright: the new scanner."
    )
    up = Axis("AUROC", span=(_floor(diary.weeks), 1.0))
    across = Axis("week", "whole")
    return LineChart(title, tuple(series), across, up, upright=float(calendar.scanner))


def _times(weeks: Sequence[Week]) -> list[tuple[str, list[Week]]]:
    """Return the times in which a model was in use, in order."""
    return [(name, [*some]) for name, some in groupby(weeks, key=lambda week: week.model)]


def _by_scanner(weeks: Sequence[Week]) -> list[tuple[str, list[Week]]]:
    return [(name, [*some]) for name, some in groupby(weeks, key=lambda week: week.scanner)]


def _floor(weeks: Sequence[Week]) -> float:
    least = min((week.auroc for week in weeks if math.isfinite(week.auroc)), default=0.5)
    return math.floor(10 * least) / 10


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _left(diary: Diary) -> Iterator[Html]:
    runs = [*dict.fromkeys(row[0] for row in diary.left)]
    kinds = [*dict.fromkeys(row[1] for row in diary.left)]
    held = {(run, kind): (count, size) for run, kind, count, size in diary.left}
    rows = [(run, *(_messages([held.get((run, kind))]) for kind in kinds)) for run in runs]
    rows.append(("all", *(_messages([held.get((run, kind)) for run in runs]) for kind in kinds)))
    caption = f"By the audit logs of {FOLLOWED}, each of them verified: messages, and their size."
    yield table(caption, ("run", *kinds), rows)
    yield tag(
        "p",
        "Of the monitoring and of the readers' work nothing left. The studies are without privacy: "
        "the ledger has nothing to spend.",
    )


def _messages(found: Sequence[tuple[int, int] | None]) -> str:
    known = [one for one in found if one is not None]
    count, size = sum(one[0] for one in known), sum(one[1] for one in known)
    return f"{count}: {_megabytes(size)}" if known else ""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _expected(diary: Diary) -> Html:
    rows = [
        (one.text, tag("span", "▲ yes", class_="gained") if one.is_met
         else tag("span", "▼ no", class_="lost"))
        for one in diary.expectations
    ]  # fmt: skip
    return table("The script fails where one is not.", ("", "so?"), rows, words=(1,))


def _how(diary: Diary) -> Iterator[Html]:
    yield facts(diary.facts.items())
    yield bullets(
        (
            "Each step is a command of Wardround, as a user types it.",
            "The labels of a week are only looked at here: none was given to the monitoring, which "
            "sees images and predictions.",
        )
    )
