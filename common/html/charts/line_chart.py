"""Lines and points over two axes: a curve by round, or a scatter of trials."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wardround.common.html.charts import svg
from wardround.common.html.charts.axes import (
    AROUND,
    Axis,
    Frame,
    draw_axes,
    make_frame,
    room_below,
)
from wardround.common.html.charts.looks import Look, draw_marker, draw_stroke
from wardround.common.html.charts.scale import is_drawable, plain_number

_LABEL_LETTERS = 14
_LABEL_ROOM = 17.0  # units between two labels at the ends of lines
_MOST_MARKS = 700  # of a chart; a page with more is slow and heavy
_TOLD_LINES = 6


@dataclass(frozen=True, slots=True)
class Point:
    """A measured value.

    Attributes:
        x: Along the lower axis.
        y: Along the upward axis; NaN leaves a gap in the line.
        low: Lower end of its interval; NaN where it has none.
        high: Upper end.
        note: What is told on hover beside the numbers.
    """

    x: float
    y: float
    low: float = float("nan")
    high: float = float("nan")
    note: str = ""

    @property
    def is_drawn(self) -> bool:
        """Whether it has a place."""
        return is_drawable(self.x) and is_drawable(self.y)


@dataclass(frozen=True, slots=True)
class Series:
    """The points of one name, in the order in which a line joins them.

    Attributes:
        group: Series of one group share a name in the legend, and are hidden together.
        legend: The name of its group, where that is not its own.
        end_label: Stands at the end of the line; "" for none.
        is_stepped: Whether a value holds until the next one.
        most_marks: How many of its points are marked; 0 for all.
    """

    name: str
    points: tuple[Point, ...]
    look: Look
    group: int = 0
    legend: str = ""
    end_label: str = ""
    is_stepped: bool = False
    most_marks: int = 0

    @property
    def marked(self) -> int:
        """How many of its points are marked where the chart has room for all."""
        if self.look.marker is None:
            return 0
        return min(len(self.points), self.most_marks or len(self.points))


@dataclass(frozen=True, slots=True)
class LineChart:
    """A chart of series.

    Attributes:
        title: What it shows, in a sentence.
        series: As they are read; an earlier one lies above later ones.
        upright: A value on the lower axis that is marked from top to bottom.
        height: Units, without the room for names at a slant; the width is 480.
        is_square: Whether the frame is as high as it is wide, whatever the height is.
    """

    title: str
    series: tuple[Series, ...]
    across: Axis
    up: Axis
    upright: float | None = None
    height: float = 310.0
    is_square: bool = False


def draw_line_chart(chart: LineChart) -> str:
    """Return the chart as SVG; "" if no point of it can be drawn."""
    points = [point for series in chart.series for point in series.points if point.is_drawn]
    if chart.across.kind == "log":
        points = [point for point in points if point.x > 0]
    if not points:
        return ""
    height = chart.height + room_below(chart.across)
    frame = _frame(chart, points, height)
    if chart.is_square:
        height = frame.right - frame.left + AROUND
        frame = _frame(chart, points, height)
    parts = [draw_axes(frame, chart.across, chart.up, height), _upright(chart, frame)]
    every = 1 + sum(one.marked for one in chart.series) // _MOST_MARKS
    parts += [_draw_series(series, chart, frame, every) for series in reversed(chart.series)]
    parts.append(_end_labels(chart, frame))
    return svg.picture("".join(parts), svg.WIDTH, height, chart.title, _describe(chart, points))


def _frame(chart: LineChart, points: Sequence[Point], height: float) -> Frame:
    ends = [end for point in points for end in (point.low, point.high) if is_drawable(end)]
    longest = max(len(series.end_label) for series in chart.series)
    room = svg.LETTER * min(longest, _LABEL_LETTERS) + 12 if longest else 0.0
    values = [point.x for point in points], [*(point.y for point in points), *ends]
    return make_frame(chart.across, chart.up, values, height, room)


def _upright(chart: LineChart, frame: Frame) -> str:
    if chart.upright is None or not 0 <= frame.across.place(chart.upright) <= 1:
        return ""
    path = f"M{frame.x(chart.upright):.1f} {frame.top:.1f}V{frame.bottom:.1f}"
    return svg.element("path", class_="upright", d=path)


def _draw_series(series: Series, chart: LineChart, frame: Frame, every: int) -> str:
    runs = [*_unbroken(series.points, is_log=chart.across.kind == "log")]
    path = "".join(_path(run, frame, series.is_stepped) for run in runs)
    name = svg.escaped(series.name)
    parts = [draw_stroke(series.look, path, name)]
    drawn = [point for run in runs for point in run]
    parts += [_interval(point, series.look, frame) for point in drawn]
    size = 5.0 if series.look.dash == "none" else 3.4 + 0.5 * (series.look.width > 2)
    if series.most_marks:
        every = max(every, -(-len(drawn) // series.most_marks))
    for point in drawn[::every]:
        told = f"{name}: {_tell(point, chart)}"
        place = frame.x(point.x), frame.y(point.y)
        parts.append(draw_marker(series.look, *place, told, size))
    return svg.element("g", "".join(parts), class_=f"series s{series.group}")


def _unbroken(points: Sequence[Point], is_log: bool) -> Iterator[list[Point]]:
    """Yield the parts of a line between its gaps."""
    run: list[Point] = []
    for point in points:
        if point.is_drawn and not (is_log and point.x <= 0):
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _path(run: Sequence[Point], frame: Frame, is_stepped: bool) -> str:
    places = [(frame.x(point.x), frame.y(point.y)) for point in run]
    if len(places) == 1:  # round ends of a line without length make a dot
        return f"M{places[0][0]:.1f} {places[0][1]:.1f}h0"
    if is_stepped:
        steps = "".join(f"H{x:.1f}V{y:.1f}" for x, y in places[1:])
        return f"M{places[0][0]:.1f} {places[0][1]:.1f}{steps}"
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)


def _interval(point: Point, look: Look, frame: Frame) -> str:
    if not (is_drawable(point.low) and is_drawable(point.high)):
        return ""
    x, low, high = frame.x(point.x), frame.y(point.low), frame.y(point.high)
    path = f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"
    return svg.element("path", class_="interval", d=path, stroke=look.colour)


def _tell(point: Point, chart: LineChart) -> str:
    """Return what is told of a point on hover, escaped."""
    across = chart.across
    where = across.names[int(point.x)] if across.kind == "named" else plain_number(point.x)
    told = f"{across.title} {where}, {plain_number(point.y)}"
    if is_drawable(point.low) and is_drawable(point.high):
        told += f" ({plain_number(point.low)} to {plain_number(point.high)})"
    return svg.escaped(f"{told}, {point.note}" if point.note else told)


def _end_labels(chart: LineChart, frame: Frame) -> str:
    """Return the names at the ends of lines, moved apart where they would overlap."""
    labels = []
    for series in chart.series:
        drawn = [point for point in series.points if point.is_drawn]
        if series.end_label and drawn:
            labels.append((frame.y(drawn[-1].y), series))
    labels.sort(key=lambda label: label[0])
    places = _moved_apart([y for y, _ in labels], frame.top, frame.bottom)
    return "".join(
        svg.element(
            "g",
            svg.words(series.end_label, frame.right + 8, y + 4.5, letters=_LABEL_LETTERS),
            class_=f"end s{series.group}",
        )
        for y, (_, series) in zip(places, labels, strict=True)
    )


def _moved_apart(places: Sequence[float], top: float, bottom: float) -> list[float]:
    """Return sorted places with room between them, as near to where they were as it goes."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + _LABEL_ROOM) if moved else max(place, top))
    limit = bottom
    for index in reversed(range(len(moved))):
        moved[index] = min(moved[index], limit)
        limit = moved[index] - _LABEL_ROOM
    return moved


def _describe(chart: LineChart, points: Sequence[Point]) -> str:
    """Return in words what the picture shows, for those who do not see it."""
    ys = [point.y for point in points]
    sentences = [
        f"Upwards {chart.up.title}, from {plain_number(min(ys))} to {plain_number(max(ys))}."
    ]
    if chart.across.kind != "named":
        xs = [point.x for point in points]
        span = f"from {plain_number(min(xs))} to {plain_number(max(xs))}"
        sentences.append(f"Across {chart.across.title}, {span}.")
    named = sorted(chart.series, key=lambda series: -series.look.width)
    for series in named[:_TOLD_LINES]:
        drawn = [point for point in series.points if point.is_drawn]
        if drawn:
            sentences.append(f"{series.name} ends at {plain_number(drawn[-1].y)}.")
    if len(named) > _TOLD_LINES:
        sentences.append(f"{len(named) - _TOLD_LINES} more; the table has all numbers.")
    return " ".join(sentences)
