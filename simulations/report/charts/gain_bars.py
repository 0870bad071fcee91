"""The small bars beside the gains, on a scale that all hospitals share."""

import math
from collections.abc import Sequence

from wardround.common.html.charts.small import Gain, draw_gain
from wardround.simulations.report.verdict import SiteVerdict
from wardround.simulations.report.wording import signed


def draw_gain_bars(sites: Sequence[SiteVerdict], metric: str) -> list[str]:
    """Return a bar a site, "" for a site without a gain."""
    reaches = [
        abs(site.gain) + (site.margin if site.has_interval else 0)
        for site in sites
        if not math.isnan(site.gain)
    ]
    reach = max(reaches, default=0.0)
    return [
        draw_gain(
            Gain(site.gain, site.margin if site.has_interval else math.nan, reach, site.outcome),
            f"gain {signed(site.gain, metric)}",
        )
        for site in sites
    ]
