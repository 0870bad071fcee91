"""ROC and precision-recall curves of several ways of answering, of hospitals or of classes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.figure import Figure, Numbers, line_figure
from wardround.common.html.charts.line_chart import LineChart, Point, Series
from wardround.common.html.charts.looks import FEDERATION, MUTED, Look, series_colour, site_look
from wardround.common.statistics.decisions.curves import Floats, PassedCounts, count_scores
from wardround.simulations.evidence.answers import OWN, Answers
from wardround.simulations.run_files.folder import FEDERATED, POOLED

WAY_TITLES = {FEDERATED: "federated", OWN: "own data alone", POOLED: "pooled data"}
WAY_LOOKS = {
    FEDERATED: Look(FEDERATION, None, 3.2),
    OWN: Look(series_colour(3), None, 2.0, "dotted"),
    POOLED: Look(MUTED, None, 2.2, "dashed"),
}
CHANCE = Look(MUTED, None, 1.0, "dotted")
_GRID = np.linspace(0.0, 1.0, 101)
_FINEST = 1 / 400  # of an axis: a smaller step cannot be seen
_MARKS = 6
_TOLD = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
ONE = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve with its name.

    Attributes:
        across: Ascending, in [0, 1].
        up: In [0, 1].
    """

    name: str
    look: Look
    across: Floats
    up: Floats


def roc_of(answers: Answers, name: str, look: Look, classes: Sequence[int] = ()) -> Curve | None:
    """Return sensitivity over false alarms; of several classes their mean at each false alarm.

    Args:
        classes: Of which; those that are asked where empty.
        answers, name, look: Of the curve.
    """
    counts = [one for one in _counts(answers, classes) if one.positives and one.negatives]
    if not counts:
        return None
    if len(counts) == 1:
        return Curve(name, look, *_thinned(counts[0].false_alarms, counts[0].sensitivity))
    each = [np.interp(_GRID, one.false_alarms, one.sensitivity) for one in counts]
    return Curve(name, look, _GRID, np.mean(each, axis=0))


def precision_recall_of(
    answers: Answers, name: str, look: Look, classes: Sequence[int] = ()
) -> Curve | None:
    """Return precision over recall; of several classes their mean at each recall."""
    counts = [one for one in _counts(answers, classes) if one.positives]
    if not counts:
        return None
    if len(counts) == 1:
        return Curve(name, look, *_thinned(counts[0].sensitivity, counts[0].precision))
    each = [one.precision[np.searchsorted(one.sensitivity, _GRID - 1e-12)] for one in counts]
    return Curve(name, look, _GRID, np.mean(each, axis=0))


def draw_roc(title: str, curves: Sequence[Curve]) -> Figure | None:
    """Return ROC curves over the diagonal that scores without meaning would give."""
    chance = Curve("a coin", CHANCE, np.array(ONE), np.array(ONE))
    across = Axis("false alarms: share of others reported", span=ONE)
    up = Axis("sensitivity: share of cases found", span=ONE)
    return _draw(title, [*curves, chance], (across, up), "false alarms")


def draw_precision_recall(title: str, curves: Sequence[Curve]) -> Figure | None:
    """Return precision-recall curves."""
    across = Axis("sensitivity: share of cases found", span=ONE)
    up = Axis("precision: share of the reported that have it", span=ONE)
    return _draw(title, curves, (across, up), "sensitivity")


def looks_of(names: Sequence[str]) -> Mapping[str, Look]:
    """Return a look for each hospital or class; dashes where there are more than colours."""
    return {
        name: site_look(index, 1.8, "solid" if index < 8 else "dashed")
        for index, name in enumerate(names)
    }


def _draw(
    title: str, curves: Sequence[Curve], axes: tuple[Axis, Axis], heading: str
) -> Figure | None:
    if not [curve for curve in curves if curve.look is not CHANCE]:
        return None
    series = tuple(
        Series(
            curve.name,
            tuple(Point(float(x), float(y)) for x, y in zip(curve.across, curve.up, strict=True)),
            curve.look,
            group,
            most_marks=_MARKS,
        )
        for group, curve in enumerate(curves)
    )
    chart = LineChart(title, series, *axes, is_square=True)
    return line_figure(chart, _numbers(title, heading, curves))


def _numbers(title: str, heading: str, curves: Sequence[Curve]) -> Numbers:
    told = [curve for curve in curves if curve.look is not CHANCE]
    rows = tuple((f"{place:g}", *(_read_off(curve, place) for curve in told)) for place in _TOLD)
    return Numbers(f"{title} Read off at some places.", (heading, *(c.name for c in told)), rows)


def _read_off(curve: Curve, place: float) -> str:
    value = float(np.interp(place, curve.across, curve.up))
    return "–" if math.isnan(value) else f"{value:.3f}"


def _counts(answers: Answers, classes: Sequence[int]) -> list[PassedCounts]:
    return [
        count_scores(answers.scores[:, k], answers.labels[:, k]) for k in classes or answers.asked
    ]


def _thinned(across: Floats, up: Floats) -> tuple[Floats, Floats]:
    """Return the points of a curve that can be told apart on a picture."""
    steps = np.round(np.stack([across, up], axis=1) / _FINEST)
    moved = np.append(True, (np.diff(steps, axis=0) != 0).any(axis=1))
    moved[-1] = True
    kept = np.flatnonzero(moved)
    # Points between two others on a line that is upright or level say nothing.
    x, y = across[kept], up[kept]
    inner = np.ones(len(kept), dtype=bool)
    if len(kept) > 2:
        level = (np.diff(y)[:-1] == 0) & (np.diff(y)[1:] == 0)
        upright = (np.diff(x)[:-1] == 0) & (np.diff(x)[1:] == 0)
        inner[1:-1] = ~(level | upright)
    return x[inner], y[inner]
