"""Who holds what, as a picture: a bar a site and split, a colour a class, in one HTML file."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from wardround.common.html.palette import colour_of
from wardround.simulations.run_files.folder import SplitRow
from wardround.simulations.sites.assignment import SPLIT_NAMES

_LEFT, _WIDTH, _RIGHT = 220, 560, 70  # of labels, of the longest bar, of its number
_BAR, _STEP, _GAP = 14, 18, 12

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Who holds what</title>
<style>
body {{ font: 14px system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }}
svg text {{ font-size: 12px; fill: #222 }}
span {{ margin-right: 1.5em }}
i {{ display: inline-block; width: 0.8em; height: 0.8em; margin-right: 0.4em }}
</style>
<h1>Who holds what</h1>
<p>{legend}</p>
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img"
 aria-label="Examinations of each site, split and class">
{bars}
</svg>
{notes}
</html>
"""


def draw_split(path: Path, table: Sequence[SplitRow], notes: Sequence[str]) -> None:
    """Write the picture of a split table.

    Args:
        table: As ``split.csv`` holds it.
        notes: Sentences shown below.
    """
    sites = tuple(dict.fromkeys(row.site for row in table))
    colours = _colours(table)
    legend = " ".join(
        f'<span><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in colours.items()
        if name
    )
    page = _PAGE.format(
        legend=legend or "A bar shows a site's examinations.",
        width=_LEFT + _WIDTH + _RIGHT,
        height=len(sites) * (len(SPLIT_NAMES) * _STEP + _GAP),
        bars="\n".join(_bars(table, sites, colours)),
        notes="\n".join(f"<p>{escape(note)}</p>" for note in notes),
    )
    path.write_text(page, encoding="utf-8")


def _colours(table: Sequence[SplitRow]) -> dict[str, str]:
    """Return a colour a class; one for "" where the study has no classes to count."""
    names = list(dict.fromkeys(row.class_name for row in table if row.class_name)) or [""]
    return {name: colour_of(place) for place, name in enumerate(names)}


def _bars(
    table: Sequence[SplitRow], sites: Sequence[str], colours: dict[str, str]
) -> Iterator[str]:
    counts = {(row.site, row.split, row.class_name): row.examinations for row in table}
    # An examination with several labels is in several classes: a bar may be longer than its number.
    longest = max(
        sum(counts.get((site, split, name), 0) for name in colours)
        for site in sites
        for split in SPLIT_NAMES
    )
    y = 0
    for site in sites:
        for split in SPLIT_NAMES:
            yield f'<text x="0" y="{y + _BAR - 2}">{escape(f"{site}: {split}")}</text>'
            x = float(_LEFT)
            for name, colour in colours.items():
                count = counts.get((site, split, name), 0)
                width = _WIDTH * count / max(longest, 1)
                what = escape(f"{site}, {split}{', ' if name else ''}{name}: {count}")
                yield (
                    f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" '
                    f'fill="{colour}"><title>{what}</title></rect>'
                )
                x += width
            total = counts.get((site, split, ""), 0)
            yield f'<text x="{x + 6:.1f}" y="{y + _BAR - 2}">{total}</text>'
            y += _STEP
        y += _GAP
