"""The report's charts, as Plotly figures in JSON.

Written as Plotly's JSON directly: importing its Python classes costs most of a second, and they
would only be turned into this JSON again.
"""

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wardround.client.data.manifest.examination import SPLITS
from wardround.common.html.palette import COLOURS, GREY, SYMBOLS, colour_of, site_colour
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.wording import metric_title, sentence_title
from wardround.simulations.run_files.folder import (
    ALL_SITES,
    FEDERATED,
    POOLED,
    MetricRow,
    local_model,
)

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of the page.

    Attributes:
        caption: What it shows, also for who cannot see it.
        figure: Plotly's JSON, safe inside a script element.
    """

    caption: str
    figure: str


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a curve: whose numbers, and how they are drawn."""

    model: str
    site: str
    name: str
    colour: str
    width: float = 1.3
    dash: str = "solid"
    symbol: str = "circle"


def draw_curves(contents: RunContents, metric: str) -> Chart | None:
    """Return a metric on validation patients by round; None if it was not measured."""
    rows = [
        row
        for row in contents.metrics
        if (row.metric, row.split, row.class_name) == (metric, "validation", "") and row.round >= 0
    ]
    if not any(row.model == FEDERATED and not math.isnan(row.value) for row in rows):
        return None
    traces = [_trace(line, rows) for line in _lines(contents)]
    layout = page_layout("round", f"{metric_title(metric)} (validation)", x=_round_axis(contents))
    caption = f"{sentence_title(metric)} on validation patients by round; bold: all sites."
    if (best := contents.facts.best_round) >= 0:
        layout["shapes"] = [_upright(best)]
        caption += f" The dotted upright marks round {best}, whose model is kept."
    return Chart(caption, page_json([trace for trace in traces if trace is not None], layout))


def _upright(x: float) -> Json:
    line = {"color": GREY, "width": 1, "dash": "dot"}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def _round_axis(contents: RunContents) -> Json:
    """Return the x axis of a chart by round: every round has its tick where there is room."""
    return {"dtick": 1} if contents.rounds_done <= 12 else {}


def _lines(contents: RunContents) -> list[_Line]:
    lines = [_Line(POOLED, ALL_SITES, "pooled data", GREY, 3, "dash")]
    for index, site in enumerate(contents.sites):
        colour, symbol = site_colour(index), SYMBOLS[index % len(SYMBOLS)]
        lines.append(_Line(local_model(site), site, f"{site} alone", colour, 1.6, "dot", symbol))
        lines.append(_Line(FEDERATED, site, site, colour, symbol=symbol))
    return [*lines, _Line(FEDERATED, ALL_SITES, "federated, all sites", COLOURS[0], 4)]


def _trace(line: _Line, rows: Sequence[MetricRow]) -> Json | None:
    points = sorted(
        (r.round, r.value) for r in rows if (r.model, r.site) == (line.model, line.site)
    )
    if not points:
        return None
    return {
        "type": "scatter",
        "x": [round_ for round_, _ in points],
        "y": [None if math.isnan(value) else value for _, value in points],
        "name": html.escape(line.name),  # Plotly reads its labels as a small HTML
        "mode": "lines+markers" if line.dash == "solid" else "lines",
        "line": {"color": line.colour, "width": line.width, "dash": line.dash},
        "marker": {"symbol": line.symbol, "size": 6},
        "opacity": 1 if line.width > 2 else 0.85,
    }


def draw_uses(contents: RunContents) -> Chart | None:
    """Return the patients of each site, stacked by train, validation and test."""
    counts = {(row.site, row.split): row.patients for row in contents.split if not row.class_name}
    parts: dict[str, list[int]] = {
        split: [counts.get((s, split), 0) for s in contents.sites] for split in SPLITS
    }
    caption = "Patients of each hospital, by what they are used for."
    return _draw_bars(contents.sites, parts, "patients", caption)


def draw_classes(contents: RunContents) -> Chart | None:
    """Return the examinations of each site, stacked by class; None where classes overlap."""
    if not contents.exclusive_classes:
        return None
    parts = {
        name: [
            sum(r.examinations for r in contents.split if (r.site, r.class_name) == (site, name))
            for site in contents.sites
        ]
        for name in contents.classes
    }
    caption = "Examinations of each hospital, by class."
    return _draw_bars(contents.sites, parts, "examinations", caption)


def _draw_bars(
    sites: Sequence[str], parts: Mapping[str, list[int]], unit: str, caption: str
) -> Chart | None:
    if not any(count for counts in parts.values() for count in counts):
        return None
    names = [html.escape(site) for site in sites]
    traces: list[Json] = [
        {
            "type": "bar",
            "x": counts,
            "y": names,
            "orientation": "h",
            "name": html.escape(part),
            "marker": {"color": colour_of(index), "line": {"color": "white", "width": 0.5}},
        }
        for index, (part, counts) in enumerate(parts.items())
    ]
    height = 130 + 34 * len(sites) + 12 * len(parts)
    layout = page_layout(
        unit, "", height, y={"autorange": "reversed", "type": "category", "ticks": ""}
    )
    return Chart(caption, page_json(traces, layout | _STACKED))


def draw_seconds(contents: RunContents) -> Chart | None:
    """Return each site's seconds by round; None where no site says how long it took."""
    if not any(row.seconds for row in contents.traffic if row.model == FEDERATED):
        return None
    traces: list[Json] = []
    for index, site in enumerate(contents.sites):
        rows = sorted(
            (r.round, r.seconds) for r in contents.traffic if (r.model, r.site) == (FEDERATED, site)
        )
        traces.append(
            {
                "type": "scatter",
                "x": [round_ for round_, _ in rows],
                "y": [seconds for _, seconds in rows],
                "name": html.escape(site),
                "mode": "lines+markers",
                "line": {"color": site_colour(index), "width": 1.6},
                "marker": {"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 6},
            }
        )
    layout = page_layout(
        "round", "seconds", 280, y={"rangemode": "tozero"}, x=_round_axis(contents)
    )
    return Chart("Seconds of each hospital's work by round.", page_json(traces, layout))


def draw_traffic(contents: RunContents) -> Chart | None:
    """Return the traffic of all sites together by round."""
    rows = [row for row in contents.traffic if row.model == FEDERATED]
    rounds = sorted({row.round for row in rows})
    if not rounds:
        return None
    small = max(row.bytes_down + row.bytes_up for row in rows) < 1e5
    unit, size = ("kilobytes", 1e3) if small else ("megabytes", 1e6)
    down = [sum(r.bytes_down for r in rows if r.round == n) / size for n in rounds]
    up = [sum(r.bytes_up for r in rows if r.round == n) / size for n in rounds]
    traces: list[Json] = [
        {"type": "bar", "x": rounds, "y": down, "name": "to the hospitals"},
        {"type": "bar", "x": rounds, "y": up, "name": "from the hospitals"},
    ]
    for trace, colour in zip(traces, COLOURS, strict=False):
        trace["marker"] = {"color": colour}
    layout = page_layout("round", unit, 280, x=_round_axis(contents)) | _STACKED
    title = f"{unit.capitalize()} of all hospitals together by round."
    return Chart(title, page_json(traces, layout))


_STACKED: Json = {"barmode": "stack", "bargap": 0.35}


def page_layout(
    across: str, up: str, height: int = 380, x: Json | None = None, y: Json | None = None
) -> Json:
    """Return the look of the page; the colours of text and rules come from its CSS."""
    return {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "legend": {
            "orientation": "h",
            "yanchor": "bottom",
            "y": 1.02,
            "x": 0,
            "traceorder": "normal",
        },
        "hovermode": "closest",
        "xaxis": _axis(across) | {"showgrid": False, "ticks": "outside"} | (x or {}),
        "yaxis": _axis(up) | (y or {}),
    }


def _axis(title: str) -> Json:
    return {"title": {"text": title}, "automargin": True, "zeroline": False}


def page_json(traces: Sequence[Json], layout: Json) -> str:
    """Return a figure as JSON that may stand in a script element."""
    text = json.dumps({"data": traces, "layout": layout}, allow_nan=False)
    # "<" may not stand in a script element: "</script>" would end it.
    return text.replace("<", "\\u003c").replace("&", "\\u0026")
