"""The reliability diagram: what was said against how often it was so, and how often it was said."""

from collections.abc import Sequence

from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.bar_chart import Bar, BarChart
from wardround.common.html.charts.figure import Figure, Numbers, column_figure, line_figure
from wardround.common.html.charts.line_chart import LineChart, Point, Series
from wardround.common.html.charts.looks import FEDERATION, MUTED, Look, series_colour
from wardround.common.statistics.decisions.calibration import BINS
from wardround.simulations.evidence.intervals.statements import Statements, bin_shares
from wardround.simulations.report.charts.printed import percent, plural
from wardround.simulations.report.wording import number

_LOOKS = (Look(FEDERATION, 0, 2.6), Look(series_colour(3), 2, 1.8, "dashed"))
FEWEST_DRAWN = 5  # statements of a tenth; the interval of fewer fills the picture
_DIAGONAL = Look(MUTED, None, 1.0, "dotted")


def draw_reliability(title: str, named: Sequence[tuple[str, Statements]]) -> Figure | None:
    """Return the diagram of one or two models over the diagonal of a calibrated one."""
    perfect = Series("as it says", (Point(0.0, 0.0), Point(1.0, 1.0)), _DIAGONAL, len(named))
    series = tuple(
        Series(name, tuple(_points(statements)), look, group)
        for group, ((name, statements), look) in enumerate(zip(named, _LOOKS, strict=False))
        if (statements.bins.count >= FEWEST_DRAWN).any()
    )
    if not series:
        return None
    across = Axis("what the model says", span=(0.0, 1.0))
    up = Axis("how often it is so", span=(0.0, 1.0))
    chart = LineChart(title, (*series, perfect), across, up, is_square=True)
    return line_figure(chart, _numbers(title, named))


def draw_said(title: str, statements: Statements) -> Figure | None:
    """Return how many statements there are of each tenth, and how many of them were so."""
    bins = statements.bins
    bars = tuple(
        Bar(str(round(100 * (index + 0.5) / BINS)), (float(right), float(count - right)))
        for index, (count, right) in enumerate(zip(bins.count, bins.right, strict=True))
    )
    parts = ("it was so", "it was not")
    return column_figure(BarChart(title, parts, bars, "statements", "the model says, in %"))


def _points(statements: Statements) -> list[Point]:
    bins = statements.bins
    return [
        Point(float(said), share.value, share.low, share.high, plural(int(count), "statement"))
        for said, share, count in zip(
            bins.mean_score, bin_shares(statements), bins.count, strict=True
        )
        if count >= FEWEST_DRAWN
    ]


def _numbers(title: str, named: Sequence[tuple[str, Statements]]) -> Numbers:
    columns = ["between"]
    for name, _ in named:
        columns += [f"{name}: says", "is so", "95 % interval", "statements"]
    rows = []
    told = [(one.bins, bin_shares(one)) for _, one in named]
    for index in range(BINS):
        row = [f"{percent(index / BINS)} and {percent((index + 1) / BINS)}"]
        for bins, shares in told:
            share = shares[index]
            interval = f"{number(share.low)} to {number(share.high)}" if share.is_known else "–"
            row += [number(float(bins.mean_score[index])), number(share.value), interval]
            row.append(str(int(bins.count[index])))
        rows.append(tuple(row))
    return Numbers(title, tuple(columns), tuple(rows))
