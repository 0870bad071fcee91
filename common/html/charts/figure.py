"""A chart with what belongs to it: its legend, its caption and its numbers as a table."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from wardround.common.html.charts.bar_chart import BarChart, draw_bar_chart, draw_column_chart
from wardround.common.html.charts.line_chart import LineChart, Series, draw_line_chart
from wardround.common.html.charts.looks import draw_key
from wardround.common.html.charts.scale import is_drawable, plain_number
from wardround.common.html.charts.svg import escaped
from wardround.common.html.palette import COLOURS

HIDEABLE = 12  # groups of series that the style sheet can hide
_SHORT_TABLE = 12  # columns that fit on paper


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of a chart, as a table.

    Attributes:
        caption: What they are.
        columns: The headings; the first is that of the rows' headings.
        rows: The cells as printed, the row's heading first.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart as it stands on a page.

    Attributes:
        html: A whole ``figure`` element; everything in it is escaped.
        caption: What it shows.
        numbers: The same as a table, for where there are no pictures.
    """

    html: str
    caption: str
    numbers: Numbers | None = None


def line_figure(chart: LineChart, numbers: Numbers | None = None) -> Figure | None:
    """Return lines with a legend that hides and shows them; None if nothing can be drawn."""
    drawn = draw_line_chart(chart)
    if not drawn:
        return None
    figure = _figure(drawn, _line_legend(chart.series), chart.title, numbers)
    told = tabulate_series(chart.title, chart.across.title, chart.series)
    return figure if figure.numbers else replace(figure, numbers=told)


def bar_figure(chart: BarChart, numbers: Numbers | None = None) -> Figure | None:
    """Return lying bars with their legend; None if there is nothing to see."""
    return _bars(draw_bar_chart(chart), chart, numbers)


def column_figure(chart: BarChart, numbers: Numbers | None = None) -> Figure | None:
    """Return standing bars with their legend; None if there is nothing to see."""
    return _bars(draw_column_chart(chart), chart, numbers)


def _bars(drawn: str, chart: BarChart, numbers: Numbers | None) -> Figure | None:
    if not drawn:
        return None
    figure = _figure(drawn, _bar_legend(chart), chart.title, numbers)
    return figure if figure.numbers else replace(figure, numbers=tabulate_bars(chart.title, chart))


def tabulate_series(caption: str, heading: str, series: Sequence[Series]) -> Numbers:
    """Return every value of a chart: a row a place on the lower axis, a column a series."""
    places = sorted({point.x for one in series for point in one.points})
    values = [{point.x: point.y for point in one.points} for one in series]
    digits = _digits(value for column in values for value in column.values())
    rows = tuple(
        (plain_number(x), *(_printed(column.get(x, math.nan), digits) for column in values))
        for x in places
    )
    return Numbers(caption, (heading, *(one.name for one in series)), rows)


def tabulate_bars(caption: str, chart: BarChart) -> Numbers:
    """Return every value of a chart of bars: a row a bar, a column a part."""
    digits = _digits(value for bar in chart.bars for value in bar.values)
    rows = tuple((bar.name, *(_printed(v, digits) for v in bar.values)) for bar in chart.bars)
    return Numbers(caption, (chart.across, *chart.parts), rows)


def _digits(values: Iterable[float]) -> int:
    """Return the decimals of a whole table: none for whole numbers, else four digits in all."""
    known = [value for value in values if is_drawable(value)]
    if all(value == int(value) for value in known):
        return 0
    return max(0, 3 - max(-1, math.floor(math.log10(max(map(abs, known))))))


def _printed(value: float, digits: int) -> str:
    """Return a value with as many decimals as its table has; more where it would read as zero."""
    if not is_drawable(value):
        return "–"
    text = f"{value:,.{min(digits, 9)}f}"
    if value and not any(character in "123456789" for character in text):
        return plain_number(value)
    return text.replace("-", "\u2212", 1)


def _figure(drawn: str, legend: str, caption: str, numbers: Numbers | None) -> Figure:
    fold = _fold(numbers) if numbers and numbers.rows else ""
    text = f"<figcaption>{escaped(caption)}</figcaption>"
    return Figure(f'<figure class="chart">{drawn}{legend}{text}{fold}</figure>', caption, numbers)


def _line_legend(series: Sequence[Series]) -> str:
    """Return a name a group, in the order of the series; nothing for a single one."""
    groups: dict[int, Series] = {}
    for one in series:
        if any(point.is_drawn for point in one.points):
            groups.setdefault(one.group, one)
    if len(groups) < 2:
        return ""
    return _list(_line_entry(one) for one in groups.values())


def _line_entry(series: Series) -> str:
    words = f"{draw_key(series.look)}{escaped(series.legend or series.name)}"
    if series.group >= HIDEABLE:
        return f"<li>{words}</li>"
    hide = '<input type="checkbox" checked>'
    return f'<li class="k{series.group}"><label title="hide or show">{hide}{words}</label></li>'


def _bar_legend(chart: BarChart) -> str:
    if len(chart.parts) < 2:
        return ""
    return _list(
        f'<li><span class="swatch c{index % len(COLOURS)}"></span>{escaped(part)}</li>'
        for index, part in enumerate(chart.parts)
    )


def _list(entries: Iterable[str]) -> str:
    return f'<ul class="keys">{"".join(entries)}</ul>'


def _fold(numbers: Numbers) -> str:
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in numbers.columns)
    body = "".join(
        f'<tr><th scope="row">{escaped(first)}</th>'
        + "".join(f"<td>{escaped(cell)}</td>" for cell in cells)
        + "</tr>"
        for first, *cells in numbers.rows
    )
    style = "numbers" if len(numbers.columns) <= _SHORT_TABLE else "numbers long"
    return (
        f'<details class="{style}"><summary>The numbers of this chart</summary>'
        f'<div class="wide"><table><caption>{escaped(numbers.caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )
