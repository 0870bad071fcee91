"""A metric over the rounds, drawn as SVG: it needs no script and no other package."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from wardround.common.html.palette import colour_of, site_colour

Line = Sequence[tuple[int, float]]  # round and value
_WIDTH, _HEIGHT = 680, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 34
_TICKS = 5
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


def draw_curve(together: Line, sites: Mapping[str, Line], caption: str) -> str:
    """Return a chart: the sites' lines thin, that of all of them thick; "" if there is no value."""
    values = [value for line in (together, *sites.values()) for _, value in line]
    if not values:
        return ""
    last = max(1, *(number for line in (together, *sites.values()) for number, _ in line))
    ticks = _ticks(min(values), max(values))
    frame = _Frame(last, ticks[0], ticks[-1])
    parts = [_grid(frame, ticks), *(_round_mark(frame, number) for number in _rounds(last))]
    for index, line in enumerate(sites.values()):
        parts.append(_path(frame, line, site_colour(index), 1.4))
    parts.append(_path(frame, together, colour_of(0), 3.0))
    label = escape(caption, quote=True)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="{label}" style="max-width:100%;height:auto" fill="currentColor" '
        f'font-size="12">{"".join(parts)}</svg>'
    )


def draw_participation(marks: Sequence[tuple[bool, str]]) -> str:
    """Return a row of boxes, one a round: filled where a site took part; each says why."""
    boxes = "".join(
        f'<rect x="{7 * place}" y="1" width="6" height="12" '
        f'fill="{colour_of(0) if took_part else "none"}" stroke="{colour_of(0)}" '
        f'stroke-width="0.6"><title>{escape(words)}</title></rect>'
        for place, (took_part, words) in enumerate(marks)
    )
    width = 7 * len(marks)
    return f'<svg width="{width}" height="14" aria-hidden="true">{boxes}</svg>'


class _Frame:
    """Where rounds and values lie on the picture."""

    def __init__(self, last: int, low: float, high: float) -> None:
        self._last, self._low, self._high = last, low, high

    def x(self, number: float) -> float:
        """Return the place of a round."""
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * number / self._last

    def y(self, value: float) -> float:
        """Return the height of a value."""
        share = (value - self._low) / (self._high - self._low)
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers that hold both."""
    spread = (high - low) or abs(high) or 1.0
    size = 10 ** math.floor(math.log10(spread / _TICKS))
    step = next(size * one for one in _STEPS if size * one * _TICKS >= spread)
    first, last = math.floor(low / step), math.ceil(high / step)
    counts = range(first, max(last, first + 1) + 1)
    return [float(f"{step * count:.6g}") for count in counts]


def _rounds(last: int) -> range:
    return range(0, last + 1, max(1, math.ceil(last / 10)))


def _grid(frame: _Frame, ticks: Sequence[float]) -> str:
    lines = []
    for tick in ticks:
        y = frame.y(tick)
        lines.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="currentColor" stroke-opacity="0.18"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    return "".join(lines)


def _round_mark(frame: _Frame, number: int) -> str:
    x = frame.x(number)
    return f'<text x="{x:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{number}</text>'


def _path(frame: _Frame, line: Line, colour: str, width: float) -> str:
    drawn = "".join(_stroke(frame, part, colour, width) for part in _unbroken(line))
    dots = "".join(
        f'<circle cx="{frame.x(number):.1f}" cy="{frame.y(value):.1f}" r="{width + 0.8:.1f}" '
        f'fill="{colour}"><title>round {number}: {value:.4g}</title></circle>'
        for number, value in line
    )
    return drawn + dots


def _stroke(frame: _Frame, line: Line, colour: str, width: float) -> str:
    points = " ".join(f"{frame.x(number):.1f},{frame.y(value):.1f}" for number, value in line)
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _unbroken(line: Line) -> list[list[tuple[int, float]]]:
    """Return the parts of a line between which rounds were not measured."""
    parts: list[list[tuple[int, float]]] = []
    for number, value in line:
        if parts and number == parts[-1][-1][0] + 1:
            parts[-1].append((number, value))
        else:
            parts.append([(number, value)])
    return parts
