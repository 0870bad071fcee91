"""Stacked bars: lying, a bar a name; or standing, a bar a round."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from wardround.common.html.charts import svg
from wardround.common.html.charts.axes import Axis, Frame, draw_axes, make_frame
from wardround.common.html.charts.looks import series_colour
from wardround.common.html.charts.scale import (
    LinearScale,
    Scale,
    fitted_scale,
    is_drawable,
    linear_scale,
    plain_number,
)

_STEP, _BAR = 26.0, 18.0  # units from bar to bar, and of a bar
_NAME_LETTERS = 17
_TOP, _BOTTOM = 6.0, 46.0
_HEADING = 26.0  # units of a line of words between bars
_COLUMNS_HEIGHT = 250.0
_DIGIT = 8.2  # units of a digit of the small numbers inside bars
_TOLD_BARS = 6


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of stacked parts.

    Attributes:
        name: Of a site, a split or a round.
        values: One a part; a part that is not above 0 is left out.
        end_label: Stands at its end; "" for the sum of the parts.
        heading: Stands above it, for the bars until the next heading.
    """

    name: str
    values: tuple[float, ...]
    end_label: str = ""
    heading: str = ""

    @property
    def drawn(self) -> tuple[float, ...]:
        """The parts as drawn: what cannot be drawn is 0."""
        return tuple(v if is_drawable(v) and v > 0 else 0.0 for v in self.values)

    @property
    def total(self) -> float:
        """The length of the bar."""
        return sum(self.drawn)


@dataclass(frozen=True, slots=True)
class BarChart:
    """Bars over one axis.

    Attributes:
        title: What it shows, in a sentence.
        parts: The names of the parts that every bar has.
        unit: What is counted.
        across: What the number of a standing bar means, such as "round".
    """

    title: str
    parts: tuple[str, ...]
    bars: tuple[Bar, ...]
    unit: str
    across: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether no part of any bar can be seen."""
        return not any(bar.total for bar in self.bars)


def draw_bar_chart(chart: BarChart) -> str:
    """Return lying bars as SVG, one below the other; "" if there is nothing to see."""
    if chart.is_empty:
        return ""
    ends = [bar.end_label or plain_number(bar.total) for bar in chart.bars]
    left = 10 + svg.LETTER * min(max(len(bar.name) for bar in chart.bars), _NAME_LETTERS)
    right = svg.WIDTH - 10 - svg.LETTER * max(len(end) for end in ends)
    most = max(2, min(6, int((right - left) / (svg.LETTER * 5))))
    scale = linear_scale([bar.total for bar in chart.bars], most, from_zero=True)
    places = list(_places(chart.bars))
    bottom = places[-1] + _STEP
    parts = [_rules(chart.unit, scale, (left, right), bottom)]
    heading = ""
    for bar, end, y in zip(chart.bars, ends, places, strict=True):
        base = y + _BAR - 4
        if bar.heading:
            heading = f"{bar.heading}, "
            parts.append(svg.words(bar.heading, 0, base - _STEP, letters=50))
        parts.append(svg.words(bar.name, left - 8, base, "end", _NAME_LETTERS))
        named = replace(bar, name=heading + bar.name)
        parts += _row(chart, named, (left, y), (right - left) * scale.place(1.0))
        parts.append(svg.words(end, left + (right - left) * scale.place(bar.total) + 6, base))
    height = bottom + _BOTTOM
    return svg.picture("".join(parts), svg.WIDTH, height, chart.title, _describe(chart))


def _places(bars: Sequence[Bar]) -> Iterator[float]:
    y = _TOP + (_STEP - _BAR) / 2
    for bar in bars:
        y += _HEADING if bar.heading else 0.0
        yield y
        y += _STEP


def _rules(unit: str, scale: Scale, sides: tuple[float, float], bottom: float) -> str:
    left, right = sides
    parts = []
    for tick in scale.ticks:
        x = left + (right - left) * scale.place(tick.value)
        parts.append(svg.element("path", class_="rule", d=f"M{x:.1f} {_TOP}V{bottom:.1f}"))
        parts.append(svg.words(tick.label, x, bottom + 18, "middle"))
    parts.append(svg.words(unit, (left + right) / 2, bottom + 40, "middle"))
    return svg.element("g", "".join(parts), class_="axes")


def _row(
    chart: BarChart, bar: Bar, corner: tuple[float, float], units_each: float
) -> Iterator[str]:
    """Yield the parts of a lying bar, each with its number where it has room for one."""
    x, y = corner
    for index, value in enumerate(bar.drawn):
        if not value:
            continue
        width = units_each * value
        number = plain_number(value)
        told = f"{bar.name}, {chart.parts[index]}: {number} {chart.unit}"
        yield _box(index, (x, y, width, _BAR), told)
        if len(chart.parts) > 1 and width > _DIGIT * len(number) + 6:
            inside = svg.element(
                "text", number, class_="inside", x=x + width / 2, y=y + 13, text_anchor="middle"
            )
            yield inside
        x += width


def draw_column_chart(chart: BarChart) -> str:
    """Return standing bars as SVG, side by side, each over the number that is its name."""
    if chart.is_empty:
        return ""
    numbers = [float(bar.name) for bar in chart.bars]
    across, up = Axis(chart.across, "whole"), Axis(chart.unit, from_zero=True)
    frame = _columns_frame(numbers, [bar.total for bar in chart.bars], up)
    width = max(0.5, 0.7 * (frame.x(_step(numbers)) - frame.x(0.0)))
    parts = [draw_axes(frame, across, up, _COLUMNS_HEIGHT)]
    for number, bar in zip(numbers, chart.bars, strict=True):
        below = 0.0
        for index, value in enumerate(bar.drawn):
            upper, lower = frame.y(below + value), frame.y(below)
            where = f"{chart.across} {bar.name}, {chart.parts[index]}"
            told = f"{where}: {plain_number(value)} {chart.unit}"
            box = (frame.x(number) - width / 2, upper, width, lower - upper)
            parts.append(_box(index, box, told))
            below += value
    return svg.picture("".join(parts), svg.WIDTH, _COLUMNS_HEIGHT, chart.title, _describe(chart))


def _columns_frame(numbers: Sequence[float], totals: Sequence[float], up: Axis) -> Frame:
    """Return a frame with half a step more on both sides, so that all bars stand inside."""
    frame = make_frame(Axis("", "whole"), up, (numbers, totals), _COLUMNS_HEIGHT)
    ticks = fitted_scale(numbers, len(frame.across.ticks), is_whole=True).ticks
    ticks = tuple(tick for tick in ticks if min(numbers) <= tick.value <= max(numbers))
    half = _step(numbers) / 2
    return replace(frame, across=LinearScale(min(numbers) - half, max(numbers) + half, ticks))


def _step(numbers: Sequence[float]) -> float:
    """Return the smallest distance of two bars' numbers; 1 where there are no two."""
    ordered = sorted(set(numbers))
    return min((other - one for one, other in pairwise(ordered)), default=1.0)


def _box(index: int, box: tuple[float, float, float, float], told: str) -> str:
    x, y, width, height = box
    return svg.element(
        "rect",
        svg.element("title", svg.escaped(told)),
        class_="box",
        x=x,
        y=y,
        width=width,
        height=height,
        fill=series_colour(index),
    )


def _describe(chart: BarChart) -> str:
    """Return in words what the picture shows, for those who do not see it."""
    sentences = [f"{len(chart.bars)} bars, in {chart.unit}, of {', '.join(chart.parts)}."]
    for bar in chart.bars[:_TOLD_BARS]:
        values = ", ".join(plain_number(value) for value in bar.drawn)
        sentences.append(f"{chart.across} {bar.name}: {values}.".strip())
    if len(chart.bars) > _TOLD_BARS:
        sentences.append(f"{len(chart.bars) - _TOLD_BARS} more bars.")
    return " ".join(sentences)
