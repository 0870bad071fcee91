"""The charts of a sweep: its course, and the score by each parameter."""

import html
import json
import math
from collections.abc import Sequence

from wardround.common.html.palette import COLOURS, GREY, SYMBOLS
from wardround.simulations.report.charts.figures import Chart, Json, page_json, page_layout
from wardround.simulations.report.verdict import higher_is_better
from wardround.simulations.report.wording import metric_title, sentence_title
from wardround.simulations.sweeps.folder import SweepContents, Trial, Verdict, print_value
from wardround.simulations.sweeps.search_space import Choice, Parameter

_LOOKS: dict[Verdict, tuple[str, str]] = {
    "finished": (COLOURS[0], SYMBOLS[0]),
    "stopped early": (GREY, "x"),
}


def draw_course(contents: SweepContents) -> Chart | None:
    """Return the score by trial, with the best so far as a line; None without any score."""
    scored = _scored(contents)
    if not scored:
        return None
    metric = contents.facts.metric
    traces = _points(scored, [trial.number for trial in scored])
    finished = [trial for trial in scored if trial.status == "finished"]
    choose = max if higher_is_better(metric) else min
    bests = [choose(t.value for t in finished[: n + 1]) for n in range(len(finished))]
    traces.append(
        {
            "type": "scatter",
            "x": [trial.number for trial in finished],
            "y": bests,
            "name": "best so far",
            "mode": "lines",
            "line": {"color": COLOURS[3], "width": 2, "shape": "hv"},
        }
    )
    layout = page_layout("trial", f"{metric_title(metric)} (validation)", 320)
    caption = f"{sentence_title(metric)} on validation patients by trial."
    return Chart(caption, page_json(traces, layout))


def draw_slices(contents: SweepContents) -> list[Chart]:
    """Return the score by the values of each parameter."""
    scored, metric = _scored(contents), contents.facts.metric
    charts = []
    for parameter in contents.parameters if scored else ():
        traces = _points(scored, [_place(parameter, trial) for trial in scored])
        layout = page_layout(
            html.escape(parameter.key),
            f"{metric_title(metric)} (validation)",
            320,
            x=_axis(parameter),
        )
        caption = f"{sentence_title(metric)} on validation patients by {parameter.key}."
        charts.append(Chart(caption, page_json(traces, layout)))
    return charts


def _scored(contents: SweepContents) -> list[Trial]:
    return [trial for trial in contents.trials if not math.isnan(trial.value)]


def _points(trials: Sequence[Trial], places: Sequence[object]) -> list[Json]:
    traces: list[Json] = []
    for status, (colour, symbol) in _LOOKS.items():
        chosen = [n for n, trial in enumerate(trials) if trial.status == status]
        if not chosen:
            continue
        traces.append(
            {
                "type": "scatter",
                "x": [places[n] for n in chosen],
                "y": [trials[n].value for n in chosen],
                "text": [f"trial {trials[n].number}" for n in chosen],
                "name": status,
                "mode": "markers",
                "marker": {"color": colour, "symbol": symbol, "size": 9},
            }
        )
    return traces


def _place(parameter: Parameter, trial: Trial) -> object:
    value = trial.changes[parameter.key]
    return html.escape(print_value(value)) if isinstance(parameter, Choice) else value


def _axis(parameter: Parameter) -> Json:
    if isinstance(parameter, Choice):
        known = [html.escape(print_value(json.loads(line))) for line in parameter.values]
        return {"type": "category", "categoryorder": "array", "categoryarray": known}
    return {"type": "log" if parameter.is_log else "linear", "exponentformat": "power"}
