"""The lines of sites: a look each for a few; of many, the outer ones stand out from the rest."""

from collections.abc import Mapping, Sequence

from wardround.common.html.charts.line_chart import Point, Series
from wardround.common.html.charts.looks import MUTED, Look, site_look
from wardround.common.html.palette import COLOURS

FEW_SITES = len(COLOURS) - 1  # more colours cannot be told apart; the first is the federation's
Lines = Mapping[str, Sequence[Point]]


def site_series(lines: Lines, alone: Lines | None = None, group: int = 1) -> tuple[Series, ...]:
    """Return a series a site, or two.

    Args:
        lines: The points of each site.
        alone: A second line of each, of the model that it trained alone; dotted.
        group: The first group of the legend that is free.
    """
    beside = alone or {}
    sites = [*lines, *(site for site in beside if site not in lines)]
    if len(sites) > FEW_SITES:
        return _of_many(lines, beside, group)
    series = []
    for index, site in enumerate(sites):
        if site in lines:
            series.append(Series(site, tuple(lines[site]), site_look(index), group + index))
        if site in beside:
            look = site_look(index, 1.4, "dotted")
            series.append(Series(f"{site} alone", tuple(beside[site]), look, group + index))
    return tuple(series)


def _of_many(lines: Lines, beside: Lines, group: int) -> tuple[Series, ...]:
    ends = {site: drawn[-1].y for site, drawn in _drawn(lines).items() if drawn}
    outer = {}
    if ends:
        outer = {
            min(ends, key=ends.__getitem__): "lowest",
            max(ends, key=ends.__getitem__): "highest",
        }
    series = []
    for index, (site, place) in enumerate(outer.items()):
        legend = f"{site}, {place} at the end"
        look = site_look(1 + index)
        points = tuple(lines[site])
        series.append(Series(site, points, look, group + index, legend=legend, end_label=site))
    quiet, dotted = Look(MUTED, None, 0.8), Look(MUTED, None, 0.8, "dotted")
    for site in lines:
        if site not in outer:
            series.append(
                Series(site, tuple(lines[site]), quiet, group + 2, legend="every other hospital")
            )
    series += [
        Series(f"{site} alone", tuple(points), dotted, group + 3, legend="each hospital alone")
        for site, points in beside.items()
    ]
    return tuple(series)


def _drawn(lines: Lines) -> dict[str, list[Point]]:
    return {site: [point for point in points if point.is_drawn] for site, points in lines.items()}
