"""Small pictures that stand in a table: a gain with its interval, a row of boxes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wardround.common.html.charts import svg
from wardround.common.html.charts.looks import FEDERATION

GAIN_WIDTH, _GAIN_HEIGHT = 120.0, 18.0
_EDGE = 3.0
_BOX, _BOX_STEP, _BOX_HEIGHT = 6.0, 7.0, 12.0


@dataclass(frozen=True, slots=True)
class Gain:
    """A difference from zero.

    Attributes:
        value: NaN draws nothing.
        margin: Half of its interval; NaN where it is not known.
        reach: What the whole length to one side stands for; the same for all bars of a table.
        tone: A class of the page: "gained", "lost" or another.
    """

    value: float
    margin: float
    reach: float
    tone: str


def draw_gain(gain: Gain, title: str) -> str:
    """Return a bar from zero to the gain, with its interval; "" for no gain."""
    if math.isnan(gain.value):
        return ""
    middle = GAIN_WIDTH / 2
    scale = (middle - _EDGE) / (gain.reach or 1.0)
    end = middle + scale * gain.value
    bar = svg.element(
        "rect", class_="gain", x=min(middle, end), y=4, width=abs(end - middle), height=10
    )
    zero = svg.element("path", class_="zero", d=f"M{middle} 0V{_GAIN_HEIGHT}")
    interval = ""
    if not math.isnan(gain.margin):
        low, high = end - scale * gain.margin, end + scale * gain.margin
        path = f"M{low:.1f} 9H{high:.1f}M{low:.1f} 6v6M{high:.1f} 6v6"
        interval = svg.element("path", class_="interval", d=path)
    drawn = svg.picture(bar + zero + interval, GAIN_WIDTH, _GAIN_HEIGHT, title)
    return f'<span class="bar {svg.escaped(gain.tone)}">{drawn}</span>'


def draw_boxes(marks: Sequence[tuple[bool, str]]) -> str:
    """Return a row of boxes: filled where something was so; each tells its words on hover.

    It is hidden from screen readers: the same must stand beside it in words.
    """
    boxes = "".join(
        svg.element(
            "rect",
            svg.element("title", svg.escaped(words)),
            x=_BOX_STEP * place + 0.5,
            y=1,
            width=_BOX,
            height=_BOX_HEIGHT,
            fill=FEDERATION if is_filled else "transparent",  # "none" would tell nothing on hover
            stroke=FEDERATION,
            stroke_width=0.6,
        )
        for place, (is_filled, words) in enumerate(marks)
    )
    width = _BOX_STEP * len(marks) + 1
    return f'<svg class="boxes" width="{width:g}" height="14" aria-hidden="true">{boxes}</svg>'
