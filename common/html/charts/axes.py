"""The frame of a chart: its scales, its round numbers and their lines, its titles."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from wardround.common.html.charts import svg
from wardround.common.html.charts.scale import (
    Scale,
    Tick,
    fitted_scale,
    linear_scale,
    log_scale,
    named_scale,
)

_TOP = 28.0  # the title of the upward axis stands above it, where it can be read
_RIGHT = 14.0
_BOTTOM = 48.0
AROUND = _TOP + _BOTTOM  # units of a picture's height that its frame leaves
_SLANTED_LETTERS = 16
_SLANTED_ROOM = 6.0  # units that a letter goes down at this slant
_NAMES_ROOM = 400.0  # units of an axis that its names have to share


@dataclass(frozen=True, slots=True)
class Axis:
    """What is measured along one side.

    Attributes:
        title: With its unit.
        kind: "whole" has no ticks between whole numbers, "log" no values below or at 0;
            "named" has a place for each of ``names``, and a value is an index of them.
        from_zero: Whether zero is shown though no value is near it.
        span: What is shown whatever the values are; of a "linear" axis.
    """

    title: str
    kind: Literal["whole", "linear", "log", "named"] = "linear"
    names: tuple[str, ...] = ()
    from_zero: bool = False
    span: tuple[float, float] | None = None

    def held(self, values: Sequence[float]) -> Sequence[float]:
        """Return the values that the axis has to hold."""
        return values if self.span is None else self.span


@dataclass(frozen=True, slots=True)
class Frame:
    """Where values lie on a picture, in units from its upper left corner."""

    across: Scale
    up: Scale
    left: float
    right: float
    top: float
    bottom: float
    is_slanted: bool = False

    def x(self, value: float) -> float:
        """Return how far right a value lies."""
        return self.left + (self.right - self.left) * self.across.place(value)

    def y(self, value: float) -> float:
        """Return how far down a value lies."""
        return self.bottom - (self.bottom - self.top) * self.up.place(value)


def make_frame(
    across: Axis,
    up: Axis,
    values: tuple[Sequence[float], Sequence[float]],
    height: float,
    room_right: float = 0.0,
) -> Frame:
    """Return the frame that holds all values.

    Args:
        across: The axis from left to right.
        up: The axis from below.
        values: Drawable ones, at least one of each axis: (across, up).
        height: Units of the whole picture, with the room below for names at a slant.
        room_right: Units kept free on the right, for labels at the ends of lines.
    """
    rises = linear_scale(up.held(values[1]), from_zero=up.from_zero)
    left = 10 + svg.LETTER * max(len(tick.label) for tick in rises.ticks)
    right = svg.WIDTH - max(_RIGHT, room_right)
    slanted = room_below(across)
    runs = _across_scale(across, across.held(values[0]), right - left)
    return Frame(runs, rises, left, right, _TOP, height - _BOTTOM - slanted, slanted > 0)


def room_below(across: Axis) -> float:
    """Return the units that names need below an axis because they stand at a slant; 0 if not."""
    if across.kind != "named":
        return 0.0
    longest = max(len(name) for name in across.names)
    if longest * svg.LETTER + 8 < _NAMES_ROOM / len(across.names):
        return 0.0
    return _SLANTED_ROOM * min(longest, _SLANTED_LETTERS)


def _across_scale(axis: Axis, values: Sequence[float], room: float) -> Scale:
    if axis.kind == "named":
        return named_scale(axis.names)
    if axis.kind == "log":
        return log_scale(values)
    is_whole = axis.kind == "whole"
    letters = len(f"{max(values):.0f}") + 1 if is_whole else 7
    most = max(2, int(room / (svg.LETTER * letters)))
    return fitted_scale(values, min(most, 13), is_whole)


def draw_axes(frame: Frame, across: Axis, up: Axis, height: float) -> str:
    """Return lines, numbers and titles of both axes."""
    parts = [svg.words(up.title, 0, 15, letters=50)]
    for tick in frame.up.ticks:
        y = frame.y(tick.value)
        parts.append(
            svg.element("path", class_="rule", d=f"M{frame.left:.1f} {y:.1f}H{frame.right:.1f}")
        )
        parts.append(svg.words(tick.label, frame.left - 6, y + 4.5, "end"))
    parts.append(_base(frame))
    parts += _names(frame) if across.kind == "named" else _numbers(frame)
    middle = (frame.left + frame.right) / 2
    parts.append(svg.words(across.title, middle, height - 5, "middle", 44))
    return svg.element("g", "".join(parts), class_="axes")


def _base(frame: Frame) -> str:
    """Return the lower edge with a small stroke at each tick."""
    strokes = "".join(
        f"M{frame.x(tick.value):.1f} {frame.bottom:.1f}v5" for tick in frame.across.ticks
    )
    edge = f"M{frame.left:.1f} {frame.bottom:.1f}H{frame.right:.1f}"
    return svg.element("path", class_="edge", d=edge + strokes)


def _numbers(frame: Frame) -> list[str]:
    return [
        svg.words(tick.label, frame.x(tick.value), frame.bottom + 20, "middle")
        for tick in _uncrowded(frame)
    ]


def _uncrowded(frame: Frame) -> list[Tick]:
    """Return the ticks whose labels leave room for each other: all, or every second, or ..."""
    ticks = frame.across.ticks
    for every in range(1, len(ticks)):
        chosen = ticks[::every]
        if all(_is_apart(frame, one, other) for one, other in pairwise(chosen)):
            return list(chosen)
    return list(ticks[:1])


def _is_apart(frame: Frame, one: Tick, other: Tick) -> bool:
    room = svg.LETTER * (len(one.label) + len(other.label)) / 2 + 4
    return frame.x(other.value) - frame.x(one.value) >= room


def _names(frame: Frame) -> list[str]:
    if not frame.is_slanted:
        return _numbers(frame)
    parts = []
    for tick in frame.across.ticks:
        place = f"translate({frame.x(tick.value):.1f} {frame.bottom + 14:.1f})rotate(-40)"
        inner = svg.words(tick.label, 0, 0, "end", _SLANTED_LETTERS)
        parts.append(svg.element("g", inner, transform=place))
    return parts
