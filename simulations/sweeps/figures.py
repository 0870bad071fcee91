"""The charts of a sweep: its course, and the score by each parameter."""

import json
import math
from collections.abc import Callable, Sequence

from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.figure import Figure, line_figure
from wardround.common.html.charts.line_chart import LineChart, Point, Series
from wardround.common.html.charts.looks import FEDERATION, MUTED, Look, series_colour
from wardround.simulations.report.verdict import higher_is_better
from wardround.simulations.report.wording import metric_title, sentence_title
from wardround.simulations.sweeps.folder import SweepContents, Trial, Verdict, print_value
from wardround.simulations.sweeps.search_space import Choice, Parameter

_LOOKS: dict[Verdict, Look] = {
    "finished": Look(FEDERATION, 0, dash="none"),
    "stopped early": Look(MUTED, 6, dash="none"),
}
_HEIGHT = 290.0


def draw_course(contents: SweepContents) -> Figure | None:
    """Return the score by trial, with the best so far as a line; None without any score."""
    scored, metric = _scored(contents), contents.facts.metric
    points = _points(scored, lambda trial: trial.number, says_trial=False)
    finished = [trial for trial in scored if trial.status == "finished"]
    choose = max if higher_is_better(metric) else min
    bests = tuple(
        Point(trial.number, choose(other.value for other in finished[: place + 1]))
        for place, trial in enumerate(finished)
    )
    best = Series(
        "best so far", bests, Look(series_colour(3), None, 2.0), len(points), is_stepped=True
    )
    caption = f"{sentence_title(metric)} on validation patients by trial."
    across = Axis("trial", "whole")
    return line_figure(LineChart(caption, (*points, best), across, _up(metric), height=_HEIGHT))


def draw_slices(contents: SweepContents) -> list[Figure]:
    """Return the score by the values of each parameter."""
    scored, metric = _scored(contents), contents.facts.metric
    charts = []
    for parameter in contents.parameters:
        caption = f"{sentence_title(metric)} on validation patients by {parameter.key}."
        points = _points(scored, _place_of(parameter))
        chart = LineChart(caption, points, _axis(parameter), _up(metric), height=_HEIGHT)
        if (figure := line_figure(chart)) is not None:
            charts.append(figure)
    return charts


def _scored(contents: SweepContents) -> list[Trial]:
    return [trial for trial in contents.trials if not math.isnan(trial.value)]


def _up(metric: str) -> Axis:
    return Axis(f"{metric_title(metric)} (validation)")


def _points(
    trials: Sequence[Trial], place: Callable[[Trial], float], says_trial: bool = True
) -> tuple[Series, ...]:
    """Return a series a status, without lines."""
    series = []
    for group, (status, look) in enumerate(_LOOKS.items()):
        points = tuple(
            Point(place(trial), trial.value, note=f"trial {trial.number}" if says_trial else "")
            for trial in trials
            if trial.status == status
        )
        series.append(Series(status, points, look, group))
    return tuple(series)


def _names(parameter: Choice) -> tuple[str, ...]:
    return tuple(print_value(json.loads(line)) for line in parameter.values)


def _place_of(parameter: Parameter) -> Callable[[Trial], float]:
    """Return where a trial lies: at its number, or at the index of its choice."""
    if isinstance(parameter, Choice):
        indices = {name: float(index) for index, name in enumerate(_names(parameter))}
        return lambda trial: indices.get(print_value(trial.changes[parameter.key]), math.nan)
    return lambda trial: float(trial.changes[parameter.key])


def _axis(parameter: Parameter) -> Axis:
    if isinstance(parameter, Choice):
        return Axis(parameter.key, "named", _names(parameter))
    if parameter.is_log:
        return Axis(parameter.key, "log")
    return Axis(parameter.key, "whole" if parameter.is_whole else "linear")
