"""Decision curves: what acting on scores is worth, over the probability from which one acts."""

from collections.abc import Sequence

import numpy as np

from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.figure import Figure, Numbers, line_figure
from wardround.common.html.charts.line_chart import LineChart, Point, Series
from wardround.common.html.charts.looks import MUTED, Look
from wardround.common.statistics.decisions.curves import Floats, count_scores
from wardround.common.statistics.decisions.decision_curves import DecisionCurve, decision_curve
from wardround.simulations.evidence.answers import Answers
from wardround.simulations.report.wording import number

THRESHOLDS = np.arange(1, 100) / 100
_ALL, _NONE = Look(MUTED, None, 1.6), Look(MUTED, None, 1.6, "dotted")
_TOLD = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
_BELOW = 0.5  # of the highest value: so much is shown of what does harm
_MARKS = 6


def curve_of(answers: Answers, k: int) -> DecisionCurve:
    """Return the decision curve of one class against the rest."""
    return decision_curve(count_scores(answers.scores[:, k], answers.labels[:, k]), THRESHOLDS)


def draw_net_benefit(
    title: str, named: Sequence[tuple[str, DecisionCurve, Look]], upright: float
) -> Figure | None:
    """Return the curves of several models for one class, over acting always and never."""
    lines = [(name, curve.model, look) for name, curve, look in named]
    lines.append(("act on everybody", named[0][1].treat_all, _ALL))
    lines.append(("act on nobody", np.zeros(len(THRESHOLDS)), _NONE))
    return _draw(title, "net benefit an examination", lines, upright)


def draw_gains(title: str, named: Sequence[tuple[str, DecisionCurve, Look]]) -> Figure | None:
    """Return what the model adds for each of several classes, over the better way without it."""
    lines = [(name, curve.gain, look) for name, curve, look in named]
    lines.append(("the better of everybody and nobody", np.zeros(len(THRESHOLDS)), _NONE))
    return _draw(title, "net benefit added, an examination", lines, float("nan"))


def _draw(
    title: str, up: str, lines: Sequence[tuple[str, Floats, Look]], upright: float
) -> Figure | None:
    top = max(float(np.nanmax(values, initial=0.0)) for _, values, _ in lines)
    floor = -_BELOW * top if top > 0 else -0.05
    series = tuple(
        Series(name, tuple(_points(values, floor)), look, group, most_marks=_MARKS)
        for group, (name, values, look) in enumerate(lines)
    )
    across = Axis("acts from a probability of", span=(0.0, 1.0))
    mark = None if np.isnan(upright) else upright
    chart = LineChart(title, series, across, Axis(up), upright=mark, height=360.0)
    rows = tuple(
        (f"{place:g}", *(number(float(values[round(place * 100) - 1])) for _, values, _ in lines))
        for place in _TOLD
    )
    columns = ("acts from", *(name for name, _, _ in lines))
    return line_figure(chart, Numbers(f"{title} Read off at some places.", columns, rows))


def _points(values: Floats, floor: float) -> list[Point]:
    """Return the points down to where a line leaves the picture."""
    return [
        Point(float(x), float(y) if y >= floor else float("nan"))
        for x, y in zip(THRESHOLDS, values, strict=True)
    ]
