"""The report's charts, as Plotly figures in JSON."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardround.client.data.examination import SPLITS
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.palette import COLOURS, GREY, SYMBOLS, colour_of, site_colour
from wardround.simulations.report.wording import metric_title, sentence_title
from wardround.simulations.run_folder import (
    ALL_SITES,
    FEDERATED,
    POOLED,
    MetricRow,
    local_model,
)

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Scatter


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
    import plotly.graph_objects as go

    rows = [
        row
        for row in contents.metrics
        if (row.metric, row.split, row.class_name) == (metric, "validation", "") and row.round >= 0
    ]
    if not any(row.model == FEDERATED and not math.isnan(row.value) for row in rows):
        return None
    traces = [_trace(line, rows) for line in _lines(contents)]
    figure = go.Figure([trace for trace in traces if trace is not None])
    title = metric_title(metric)
    _lay_out(figure, across="round", up=f"{title} (validation)")
    figure.update_xaxes(dtick=1 if contents.rounds_done <= 12 else None)
    caption = f"{sentence_title(metric)} on validation patients by round; bold: all sites."
    if (best := contents.facts.best_round) >= 0:
        figure.add_vline(x=best, line={"color": GREY, "width": 1, "dash": "dot"})
        caption += f" The dotted upright marks round {best}, whose model is kept."
    return Chart(caption, _to_json(figure))


def _lines(contents: RunContents) -> list[_Line]:
    lines = [_Line(POOLED, ALL_SITES, "pooled data", GREY, 3, "dash")]
    for index, site in enumerate(contents.sites):
        colour, symbol = site_colour(index), SYMBOLS[index % len(SYMBOLS)]
        lines.append(_Line(local_model(site), site, f"{site} alone", colour, 1.6, "dot", symbol))
        lines.append(_Line(FEDERATED, site, site, colour, symbol=symbol))
    return [*lines, _Line(FEDERATED, ALL_SITES, "federated, all sites", COLOURS[0], 4)]


def _trace(line: _Line, rows: Sequence[MetricRow]) -> "Scatter | None":
    import plotly.graph_objects as go

    points = sorted(
        (r.round, r.value) for r in rows if (r.model, r.site) == (line.model, line.site)
    )
    if not points:
        return None
    return go.Scatter(
        x=[round_ for round_, _ in points],
        y=[value for _, value in points],
        name=html.escape(line.name),  # Plotly reads its labels as a small HTML
        mode="lines+markers" if line.dash == "solid" else "lines",
        line={"color": line.colour, "width": line.width, "dash": line.dash},
        marker={"symbol": line.symbol, "size": 6},
        opacity=1 if line.width > 2 else 0.85,
    )


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
    import plotly.graph_objects as go

    if not any(count for counts in parts.values() for count in counts):
        return None
    names = [html.escape(site) for site in sites]
    figure = go.Figure(
        [
            go.Bar(
                x=counts,
                y=names,
                orientation="h",
                name=html.escape(part),
                marker={"color": colour_of(index), "line": {"color": "white", "width": 0.5}},
            )
            for index, (part, counts) in enumerate(parts.items())
        ]
    )
    figure.update_layout(barmode="stack", bargap=0.35)
    _lay_out(figure, across=unit, up="", height=130 + 34 * len(sites) + 12 * len(parts))
    figure.update_yaxes(autorange="reversed", type="category", ticks="")
    figure.update_layout(legend={"traceorder": "normal"})
    return Chart(caption, _to_json(figure))


def draw_seconds(contents: RunContents) -> Chart | None:
    """Return each site's seconds by round."""
    import plotly.graph_objects as go

    traces = []
    for index, site in enumerate(contents.sites):
        rows = sorted(
            (r.round, r.seconds) for r in contents.traffic if (r.model, r.site) == (FEDERATED, site)
        )
        traces.append(
            go.Scatter(
                x=[round_ for round_, _ in rows],
                y=[seconds for _, seconds in rows],
                name=html.escape(site),
                mode="lines+markers",
                line={"color": site_colour(index), "width": 1.6},
                marker={"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 6},
            )
        )
    if not any(trace.x for trace in traces):
        return None
    figure = go.Figure(traces)
    _lay_out(figure, across="round", up="seconds", height=280)
    figure.update_xaxes(dtick=1 if contents.rounds_done <= 12 else None)
    figure.update_yaxes(rangemode="tozero")
    return Chart("Seconds of each hospital's work by round.", _to_json(figure))


def draw_traffic(contents: RunContents) -> Chart | None:
    """Return the traffic of all sites together by round."""
    import plotly.graph_objects as go

    rows = [row for row in contents.traffic if row.model == FEDERATED]
    rounds = sorted({row.round for row in rows})
    if not rounds:
        return None
    small = max(row.bytes_down + row.bytes_up for row in rows) < 1e5
    unit, size = ("kilobytes", 1e3) if small else ("megabytes", 1e6)
    down = [sum(r.bytes_down for r in rows if r.round == n) / size for n in rounds]
    up = [sum(r.bytes_up for r in rows if r.round == n) / size for n in rounds]
    figure = go.Figure(
        [
            go.Bar(x=rounds, y=down, name="to the hospitals", marker={"color": COLOURS[0]}),
            go.Bar(x=rounds, y=up, name="from the hospitals", marker={"color": COLOURS[1]}),
        ]
    )
    figure.update_layout(barmode="stack", bargap=0.35)
    _lay_out(figure, across="round", up=unit, height=280)
    figure.update_xaxes(dtick=1 if contents.rounds_done <= 12 else None)
    return Chart(f"{unit.capitalize()} of all hospitals together by round.", _to_json(figure))


def _lay_out(figure: "Figure", across: str, up: str, height: int = 380) -> None:
    """Give a figure the look of the page; the colours of text and rules come from its CSS."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 12},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        hovermode="closest",
    )
    figure.update_xaxes(
        title=across, automargin=True, zeroline=False, showgrid=False, ticks="outside"
    )
    figure.update_yaxes(title=up, automargin=True, zeroline=False)


def _to_json(figure: "Figure") -> str:
    # "<" may not stand in a script element: "</script>" would end it.
    return str(figure.to_json()).replace("<", "\\u003c").replace("&", "\\u0026")
