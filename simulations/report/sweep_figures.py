"""The charts of a sweep: its course, each parameter by itself, all parameters together."""

import html
import json
import math
from collections.abc import Sequence

from wardround.simulations.report.figures import Chart, Json, page_json, page_layout
from wardround.simulations.report.palette import COLOURS, GREY, SYMBOLS
from wardround.simulations.report.verdict import higher_is_better
from wardround.simulations.report.wording import metric_title, sentence_title
from wardround.simulations.search_space import Choice, Parameter
from wardround.simulations.sweep_folder import SweepContents, Trial, Verdict, print_value

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
            x={"type": _axis_type(parameter)},
        )
        caption = f"{sentence_title(metric)} on validation patients by {parameter.key}."
        charts.append(Chart(caption, page_json(traces, layout)))
    return charts


def draw_together(contents: SweepContents) -> Chart | None:
    """Return parallel coordinates of the finished trials; None for one parameter or one trial."""
    trials = [trial for trial in _scored(contents) if trial.status == "finished"]
    if len(contents.parameters) < 2 or len(trials) < 2:
        return None
    metric = contents.facts.metric
    values = [trial.value for trial in trials]
    dimensions = [_dimension(parameter, trials) for parameter in contents.parameters]
    dimensions.append({"label": metric_title(metric), "values": values})
    trace: Json = {
        "type": "parcoords",
        "dimensions": dimensions,
        "line": {
            "color": values,
            "colorscale": "Cividis",
            "reversescale": not higher_is_better(metric),
        },
    }
    layout = page_layout("", "", 420) | {"margin": {"l": 90, "r": 60, "t": 60, "b": 30}}
    caption = "Every finished trial as a line through its values; drag along an axis to pick."
    return Chart(caption, page_json([trace], layout))


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


def _axis_type(parameter: Parameter) -> str:
    if isinstance(parameter, Choice):
        return "category"
    return "log" if parameter.is_log else "linear"


def _dimension(parameter: Parameter, trials: Sequence[Trial]) -> Json:
    """Return one axis of the parallel coordinates; it has no logarithms and no names of its own."""
    label = html.escape(parameter.key.rpartition(".")[2])
    drawn = [trial.changes[parameter.key] for trial in trials]
    if isinstance(parameter, Choice):
        known = [json.loads(line) for line in parameter.values]
        return {
            "label": label,
            "values": [known.index(value) for value in drawn],
            "range": [0, len(known) - 1],
            "tickvals": list(range(len(known))),
            "ticktext": [html.escape(print_value(value)) for value in known],
        }
    if not parameter.is_log:
        return {"label": label, "values": drawn, "range": [parameter.low, parameter.high]}
    low, high = math.log10(parameter.low), math.log10(parameter.high)
    ticks = [low + (high - low) * step / 4 for step in range(5)]
    return {
        "label": label,
        "values": [math.log10(value) for value in drawn],
        "range": [low, high],
        "tickvals": ticks,
        "ticktext": [f"{10**tick:.2g}" for tick in ticks],
    }
