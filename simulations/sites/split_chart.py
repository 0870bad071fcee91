"""Who holds what, as a picture: a bar a site and split, a colour a class, in one HTML file."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from wardround.common.html import read_style
from wardround.common.html.charts.bar_chart import Bar, BarChart
from wardround.common.html.charts.figure import bar_figure
from wardround.simulations.run_files.folder import SplitRow
from wardround.simulations.sites.assignment import SPLIT_NAMES

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Who holds what</title>
<style>{style}</style>
</head>
<body>
<h1>Who holds what</h1>
{figure}
{notes}
</body>
</html>
"""


def draw_split(path: Path, table: Sequence[SplitRow], notes: Sequence[str]) -> None:
    """Write the picture of a split table.

    Args:
        table: As ``split.csv`` holds it.
        notes: Sentences shown below.
    """
    classes = tuple(dict.fromkeys(row.class_name for row in table if row.class_name))
    caption = "Examinations of each hospital by use" + (" and class." if classes else ".")
    bars = tuple(_bars(table, classes or ("",)))
    figure = bar_figure(BarChart(caption, classes or ("examinations",), bars, "examinations"))
    page = _PAGE.format(
        style=read_style(),
        figure=figure.html if figure else "<p>No site holds an examination.</p>",
        notes="\n".join(f"<p>{escape(note)}</p>" for note in notes),
    )
    path.write_text(page, encoding="utf-8")


def _bars(table: Sequence[SplitRow], classes: Sequence[str]) -> Iterator[Bar]:
    counts = {(row.site, row.split, row.class_name): row.examinations for row in table}
    for site in dict.fromkeys(row.site for row in table):
        for split in SPLIT_NAMES:
            # An examination with several labels is in several classes: a bar may be longer than
            # the number at its end, which counts it once.
            values = tuple(float(counts.get((site, split, name), 0)) for name in classes)
            end = str(counts.get((site, split, ""), 0))
            yield Bar(split, values, end, heading=site if split == SPLIT_NAMES[0] else "")
