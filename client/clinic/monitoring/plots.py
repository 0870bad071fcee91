"""The plots of the page: evidence, image statistics, predictions, confidence, performance."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import binomtest

from wardround.client.clinic.monitoring.case import Case
from wardround.client.clinic.monitoring.comparison.evidence import (
    SHARES,
    Budget,
    Family,
    Finding,
    has_classes,
    names_of,
    rates,
)
from wardround.client.clinic.monitoring.labels import Performance, performance_of
from wardround.client.clinic.monitoring.monitor import finding_from_json
from wardround.client.clinic.monitoring.renewal import Entry
from wardround.client.clinic.monitoring.store import Truth
from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.figure import line_figure
from wardround.common.html.charts.line_chart import LineChart, Point, Series
from wardround.common.html.charts.looks import MUTED, Look, site_look

_MOST_NEAR = 4.0  # limits: beyond it nothing is surer
_MOST_SCANNERS, _MOST_LINES = 6, 10
_LEVEL_LOOK = Look(MUTED, None, 1.2, "dashed")


def evidence_plot(looked: Sequence[Entry]) -> str:
    """Return how near each family of tests comes to an alarm in each period."""
    names = [str(entry["period"]) for entry in looked]
    series = []
    for place, family in enumerate(name for name in SHARES if name != "performance"):
        points = [_nearness(at, entry, family) for at, entry in enumerate(looked)]
        series.append(Series(family, tuple(points), site_look(place), place))
    ends = tuple(Point(x, 1.0) for x in (0, max(len(names) - 1, 1)))
    series.append(Series("alarm", ends, _LEVEL_LOOK, len(series)))
    title = "How near each family of tests is to an alarm, which is 1: log p over the limit's log."
    up = Axis("log p / log of its limit", from_zero=True)
    return _drawn(LineChart(title, tuple(series), _across(names), up))


def _nearness(at: int, entry: Entry, family: Family) -> Point:
    found = [one["p"] for one in entry["findings"] if one["family"] == family]
    if not found:
        return Point(at, math.nan)
    limit = Budget(entry["alpha"], "").limit(family)
    return Point(at, min(math.log(max(min(found), 1e-300)) / math.log(limit), _MOST_NEAR))


def statistics_plots(looked: Sequence[Entry]) -> list[str]:
    """Return how far each image statistic lies from the reference, a plot a scanner."""
    scanners: dict[str, int] = {}
    for entry in looked:
        for one in _of_family(entry, "image statistics"):
            scanners[one.scanner] = scanners.get(one.scanner, 0) + 1
    shown = sorted(scanners, key=lambda name: -scanners[name])[:_MOST_SCANNERS]
    plots = []
    for scanner in sorted(shown):
        where = f" of scanner {scanner}" if scanner else ""
        title = f"Image statistics{where}: distance of the median from the reference's."
        chosen = _shifts(looked, "image statistics", scanner)
        plots.append(_shift_chart(title, looked, chosen))
    return [plot for plot in plots if plot]


def outputs_plot(looked: Sequence[Entry]) -> str:
    """Return how far each output that is no class lies from the reference."""
    chosen = _shifts(looked, "predictions", "")
    title = "Predictions: distance of the median from the reference's."
    return _shift_chart(title, looked, chosen)


def _of_family(entry: Entry, family: str) -> list[Finding]:
    found = (finding_from_json(one) for one in entry["findings"] if one["family"] == family)
    return [one for one in found if math.isfinite(one.scale)]


def _shifts(looked: Sequence[Entry], family: str, scanner: str) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for at, entry in enumerate(looked):
        for one in _of_family(entry, family):
            if one.scanner == scanner:
                told = {"alarm": "alarm", "notice": "worth a look"}.get(one.level, "")
                shift = (one.after - one.before) / one.scale
                found.setdefault(one.name, []).append(Point(at, shift, note=told))
    return found


def _shift_chart(title: str, looked: Sequence[Entry], lines: Mapping[str, list[Point]]) -> str:
    names = [str(entry["period"]) for entry in looked]
    most = sorted(lines, key=lambda name: -max(abs(p.y) for p in lines[name]))[:_MOST_LINES]
    series = [
        Series(name, tuple(lines[name]), site_look(place), place)
        for place, name in enumerate(name for name in lines if name in most)
    ]
    up = Axis("standard deviations of the reference", from_zero=True)
    return _drawn(LineChart(title, tuple(series), _across(names), up))


def classes_plot(reference: Sequence[Case], periods: Mapping[str, Sequence[Case]]) -> str:
    """Return the rates of predicted classes with their 95 % intervals, the reference dashed."""
    if not has_classes(reference):
        return ""
    names = names_of(reference, "outputs")
    shown = names[1:] if len(names) == 2 else names[:_MOST_LINES]
    series = []
    last = max(len(periods) - 1, 1)
    for place, name in enumerate(shown):
        points = []
        for at, cases in enumerate(periods.values()):
            (count,) = rates(cases, [name])
            low, high = binomtest(count, len(cases)).proportion_ci(method="wilson")
            points.append(Point(at, 100 * count / len(cases), 100 * low, 100 * high))
        (before,) = rates(reference, [name])
        level = 100 * before / len(reference)
        look = site_look(place)
        series.append(Series(name, tuple(points), look, place))
        dashed = Look(look.colour, None, 1.2, "dashed")
        ends = tuple(Point(x, level) for x in (0, last))
        series.append(Series(f"{name} in the reference", ends, dashed, len(shown) + place))
    title = "How often each class is predicted; bars are 95 % intervals."
    across = _across([*periods])
    return _drawn(LineChart(title, tuple(series), across, Axis("% of images", from_zero=True)))


def confidence_plot(reference: Sequence[Case], periods: Mapping[str, Sequence[Case]]) -> str:
    """Return the median confidence and uncertainty, with the middle half of the images."""
    series = []
    for place, (name, told) in enumerate(
        (("confidence", "confidence"), ("entropy", "uncertainty (entropy)"))
    ):
        if not np.isfinite([getattr(case, name) for case in reference]).any():
            continue
        points = [_middle(at, cases, name) for at, cases in enumerate(periods.values())]
        look = site_look(place)
        series.append(Series(told, tuple(points), look, place))
        level = _middle(0, reference, name).y
        ends = tuple(Point(x, level) for x in (0, max(len(periods) - 1, 1)))
        dashed = Look(look.colour, None, 1.2, "dashed")
        series.append(Series(f"{told} of the reference", ends, dashed, 2 + place))
    title = "Confidence and uncertainty: medians; bars hold the middle half of the images."
    across = _across([*periods])
    return _drawn(LineChart(title, tuple(series), across, Axis("0 to 1", from_zero=True)))


def _middle(at: int, cases: Sequence[Case], name: str) -> Point:
    values = np.array([getattr(case, name) for case in cases], dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return Point(at, math.nan)
    low, middle, high = np.percentile(values, (25, 50, 75)).tolist()
    return Point(at, middle, low, high)


def performance_plot(
    reference: Sequence[Case],
    periods: Mapping[str, Sequence[Case]],
    truths: Mapping[str, Truth],
) -> str:
    """Return how well the model did in periods that are labelled, the reference dashed."""
    before = performance_of(reference, truths)
    found = [performance_of(cases, truths) for cases in periods.values()]
    if not any(found):
        return ""
    kinds: tuple[tuple[str, Callable[[Performance], float]], ...] = (
        ("accuracy", lambda one: one.accuracy),
        ("AUROC", lambda one: one.auroc),
        ("calibration error", lambda one: one.calibration_error),
        ("mean loss", lambda one: one.loss),
    )
    series = []
    for place, (name, value) in enumerate(kinds):
        points = [
            Point(at, math.nan if one is None else value(one)) for at, one in enumerate(found)
        ]
        if any(point.is_drawn for point in points):
            look = site_look(place)
            series.append(Series(name, tuple(points), look, place))
            level = math.nan if before is None else value(before)
            ends = tuple(Point(x, level) for x in (0, max(len(periods) - 1, 1)))
            dashed = Look(look.colour, None, 1.2, "dashed")
            series.append(Series(f"{name} of the reference", ends, dashed, 4 + place))
    title = "How well the model did, where labels came later."
    across = _across([*periods])
    return _drawn(LineChart(title, tuple(series), across, Axis("", from_zero=True)))


def _across(names: Sequence[str]) -> Axis:
    return Axis("period", "named", tuple(names) if len(names) > 1 else (*names, ""))


def _drawn(chart: LineChart) -> str:
    figure = line_figure(chart)
    return "" if figure is None else figure.html
