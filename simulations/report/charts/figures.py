"""The report's charts: what is drawn of a run's numbers."""

import math
from collections.abc import Callable, Mapping, Sequence

from wardround.client.data.manifest.examination import SPLITS
from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.bar_chart import Bar, BarChart
from wardround.common.html.charts.figure import (
    Figure,
    bar_figure,
    column_figure,
    line_figure,
    tabulate_bars,
    tabulate_series,
)
from wardround.common.html.charts.line_chart import LineChart, Point, Series
from wardround.common.html.charts.looks import FEDERATION, MUTED, Look
from wardround.common.html.charts.site_series import site_series
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.wording import metric_title, number, sentence_title
from wardround.simulations.run_files.folder import (
    ALL_SITES,
    FEDERATED,
    POOLED,
    MetricRow,
    local_model,
)

_ROUND = Axis("round", "whole")


def draw_curves(contents: RunContents, metric: str) -> Figure | None:
    """Return a metric on validation patients by round; None if it was not measured."""
    rows = [
        row
        for row in contents.metrics
        if (row.metric, row.split, row.class_name) == (metric, "validation", "") and row.round >= 0
    ]
    if not any(row.model == FEDERATED and not math.isnan(row.value) for row in rows):
        return None
    lines = _lines(rows)
    alone = _of_each_site(contents, lines, local_model)
    caption = f"{sentence_title(metric)} on validation patients by round; bold: all sites."
    if alone:
        caption += " Dotted: a hospital's model of its own data alone."
    if (best := contents.facts.best_round) >= 0:
        caption += f" The dotted upright marks round {best}, whose model is kept."
    caption += _noise_words(contents, rows, metric)
    series = (
        *_together(lines),
        *site_series(_of_each_site(contents, lines, lambda _: FEDERATED), alone, group=2),
    )
    up = Axis(f"{metric_title(metric)} (validation)")
    chart = LineChart(caption, series, _ROUND, up, upright=best if best >= 0 else None)
    title = f"{sentence_title(metric)} on validation patients after each round."
    return line_figure(chart, tabulate_series(title, "round", series))


def _noise_words(contents: RunContents, rows: Sequence[MetricRow], metric: str) -> str:
    """Return what noise the federated model's values have, in a study with privacy of patients."""
    if contents.study is None or not what_leaves(contents.study).noised_metrics:
        return ""
    errors = [
        row.standard_error
        for row in rows
        if (row.model, row.site) == (FEDERATED, ALL_SITES) and row.standard_error
    ]
    size = f", ± {number(sum(errors) / len(errors), metric)} for all sites" if errors else ""
    return (
        " The federated model's values have the noise that protects these patients"
        f"{size} (one standard error); it is chosen by them."
    )


_Lines = Mapping[tuple[str, str], Sequence[Point]]  # by model and site


def _lines(rows: Sequence[MetricRow]) -> _Lines:
    lines: dict[tuple[str, str], list[Point]] = {}
    for row in sorted(rows, key=lambda row: row.round):
        lines.setdefault((row.model, row.site), []).append(Point(row.round, row.value))
    return lines


def _together(lines: _Lines) -> list[Series]:
    looks = {
        FEDERATED: ("federated, all sites", Look(FEDERATION, 0, 4.0)),
        POOLED: ("pooled data", Look(MUTED, 2, 3.0, "dashed")),
    }
    return [
        Series(name, tuple(lines[model, ALL_SITES]), look, group)
        for group, (model, (name, look)) in enumerate(looks.items())
        if (model, ALL_SITES) in lines
    ]


def _of_each_site(
    contents: RunContents, lines: _Lines, model_of: Callable[[str], str]
) -> dict[str, Sequence[Point]]:
    return {
        site: lines[model_of(site), site]
        for site in contents.sites
        if (model_of(site), site) in lines
    }


def draw_uses(contents: RunContents) -> Figure | None:
    """Return the patients of each site, stacked by train, validation and test."""
    counts = {(row.site, row.split): row.patients for row in contents.split if not row.class_name}
    bars = tuple(
        Bar(site, tuple(float(counts.get((site, split), 0)) for split in SPLITS))
        for site in contents.sites
    )
    caption = "Patients of each hospital, by what they are used for."
    return bar_figure(BarChart(caption, SPLITS, bars, "patients"))


def draw_classes(contents: RunContents) -> Figure | None:
    """Return the examinations of each site, stacked by class; None where classes overlap."""
    if not contents.exclusive_classes:
        return None
    counts: dict[tuple[str, str], float] = {}
    for row in contents.split:
        key = row.site, row.class_name
        counts[key] = counts.get(key, 0.0) + row.examinations
    bars = tuple(
        Bar(site, tuple(counts.get((site, name), 0.0) for name in contents.classes))
        for site in contents.sites
    )
    caption = "Examinations of each hospital, by class."
    return bar_figure(BarChart(caption, contents.classes, bars, "examinations"))


def draw_seconds(contents: RunContents) -> Figure | None:
    """Return each site's seconds by round; None where no site says how long it took."""
    rows = sorted(
        (row for row in contents.traffic if row.model == FEDERATED), key=lambda row: row.round
    )
    if not any(row.seconds for row in rows):
        return None
    lines: dict[str, list[Point]] = {site: [] for site in contents.sites}
    for row in rows:
        lines.setdefault(row.site, []).append(Point(row.round, row.seconds))
    series = site_series({site: points for site, points in lines.items() if points})
    caption = "Seconds of each hospital's work by round."
    chart = LineChart(caption, series, _ROUND, Axis("seconds", from_zero=True), height=250)
    return line_figure(chart, tabulate_series(caption, "round", series))


def draw_traffic(contents: RunContents) -> Figure | None:
    """Return the traffic of all sites together by round."""
    rows = [row for row in contents.traffic if row.model == FEDERATED]
    if not rows:
        return None
    small = max(row.bytes_down + row.bytes_up for row in rows) < 1e5
    unit, size = ("kilobytes", 1e3) if small else ("megabytes", 1e6)
    both = {row.round: [0.0, 0.0] for row in sorted(rows, key=lambda row: row.round)}
    for row in rows:
        both[row.round][0] += row.bytes_down / size
        both[row.round][1] += row.bytes_up / size
    bars = tuple(Bar(str(round_), tuple(parts)) for round_, parts in both.items())
    title = f"{unit.capitalize()} of all hospitals together by round."
    parts = ("to the hospitals", "from the hospitals")
    chart = BarChart(title, parts, bars, unit, across="round")
    return column_figure(chart, tabulate_bars(title, chart))
