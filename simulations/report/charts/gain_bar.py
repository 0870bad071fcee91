"""The small bar beside a gain: its length on a scale that all hospitals share."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wardround.simulations.report.verdict import SiteVerdict

WIDTH = 120
HEIGHT = 18
_EDGE = 3


@dataclass(frozen=True, slots=True)
class GainBar:
    """A bar from zero to the gain with its 95 % interval, in pixels from the left.

    Attributes:
        start: Left end of the bar.
        length: Its length.
        low: Left end of the interval; None where the interval is not known.
        high: Its right end.
    """

    start: float
    length: float
    low: float | None = None
    high: float | None = None


def draw_gain_bars(sites: Sequence[SiteVerdict]) -> list[GainBar | None]:
    """Return a bar a site, None for a site without a gain."""
    reaches = [
        abs(site.gain) + (0 if math.isnan(site.margin) else site.margin)
        for site in sites
        if not math.isnan(site.gain)
    ]
    scale = (WIDTH / 2 - _EDGE) / (max(reaches, default=0) or 1)
    return [_bar(site, scale) for site in sites]


def _bar(site: SiteVerdict, scale: float) -> GainBar | None:
    if math.isnan(site.gain):
        return None
    middle = WIDTH / 2
    start = round(middle + scale * min(0.0, site.gain), 1)
    length = round(scale * abs(site.gain), 1)
    if math.isnan(site.margin):
        return GainBar(start, length)
    low, high = site.gain - site.margin, site.gain + site.margin
    return GainBar(start, length, round(middle + scale * low, 1), round(middle + scale * high, 1))
