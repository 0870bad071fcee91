"""The course of a run: its metric by round, of all sites together and of each."""

import math
from collections.abc import Iterator

from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.figure import Figure, line_figure, tabulate_series
from wardround.common.html.charts.line_chart import LineChart, Point, Series
from wardround.common.html.charts.looks import FEDERATION, Look
from wardround.common.html.charts.site_series import site_series
from wardround.common.runtime.printable import printable
from wardround.common.study.registry import METRICS
from wardround.server.operators.messages import RunRecord
from wardround.server.operators.run_summaries import TOGETHER

_MEAN = TOGETHER[1]


def draw_course(record: RunRecord) -> Figure | None:
    """Return the metric by round; None if no value was measured, or none was let out."""
    metric = record.details.summary.metric
    lines: dict[str, dict[int, float]] = {}
    for one in record.values:
        if one.value is not None:
            lines.setdefault(printable(one.site), {})[one.round] = one.value
    splits = printable(
        ", ".join(dict.fromkeys(one.split for one in record.values if one.value is not None))
    )
    together = next((site for site in lines if site in TOGETHER), "")
    sites = {site: _points(line) for site, line in sorted(lines.items()) if site not in TOGETHER}
    series = [*site_series(sites)]
    if together:
        points = _points(lines[together])
        series.insert(0, Series(together, points, Look(FEDERATION, 0, 4.0)))
    title = METRICS[metric].title if metric in METRICS else printable(metric)
    caption = f"{title} on the sites' {splits} patients, of the model after each round."
    notes = " ".join([caption, *_notes(together)])
    chart = LineChart(notes, tuple(series), Axis("round", "whole"), Axis(title))
    return line_figure(chart, tabulate_series(caption, "round", series))


def _points(line: dict[int, float]) -> tuple[Point, ...]:
    """Return a point a round; a round that was not measured leaves a gap."""
    return tuple(
        Point(number, line.get(number, math.nan)) for number in range(min(line), max(line) + 1)
    )


def _notes(together: str) -> Iterator[str]:
    if together == _MEAN:
        yield (
            "Here sites send numbers and no tables: the thick line is their mean, each weighing "
            "the examinations it says, and not the metric of all patients together."
        )
    yield "Where other sites took part in another round, its value is that of other patients."
