import re
from html.parser import HTMLParser

import pytest

from wardround.common.html import read_style
from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.bar_chart import Bar, BarChart
from wardround.common.html.charts.figure import (
    HIDEABLE,
    bar_figure,
    column_figure,
    line_figure,
    tabulate_bars,
    tabulate_series,
)
from wardround.common.html.charts.line_chart import LineChart, Point, Series
from wardround.common.html.charts.looks import Look
from wardround.common.html.charts.site_series import FEW_SITES, site_series
from wardround.common.html.palette import COLOURS

UP, ROUND = Axis("AUROC"), Axis("round", "whole")


def lines(count: int, rounds: int = 3) -> dict[str, tuple[Point, ...]]:
    return {
        f"site-{n}": tuple(Point(r, 0.5 + n / 100 + r / 1000) for r in range(rounds))
        for n in range(count)
    }


def html_of(series: tuple[Series, ...]) -> str:
    numbers = tabulate_series("The numbers.", "round", series)
    figure = line_figure(LineChart("AUROC by round.", series, ROUND, UP), numbers)
    assert figure is not None
    return figure.html


def words_of(html: str) -> str:
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = found.append  # type: ignore[method-assign]
    parser.feed(html)
    return " ".join(" ".join(found).split())


def test_each_of_a_few_sites_has_a_look_and_a_name_of_its_own() -> None:
    series = site_series(lines(FEW_SITES))
    assert len({one.look.colour for one in series}) == FEW_SITES == 8
    looks = {(one.look.colour, one.look.marker) for one in series}
    assert len(looks) == FEW_SITES
    assert len({one.look.marker for one in series}) >= 7, "told apart without colours too"
    html = html_of(series)
    assert [f'<li class="k{n}">' in html for n in range(1, FEW_SITES + 1)] == [True] * FEW_SITES


def test_of_many_sites_the_outermost_stand_out_and_none_is_lost() -> None:
    series = site_series(lines(64))
    assert [one.end_label for one in series if one.end_label] == ["site-0", "site-63"]
    assert {one.name for one in series} == set(lines(64))
    html = html_of(series)
    assert html.count("<li") == 3
    assert all(f"<title>site-{n}" in html for n in range(64)), "each tells its name on hover"
    assert html.count('<th scope="col">') == 65


def test_a_site_alone_is_dotted_and_hidden_with_its_site() -> None:
    together, alone = site_series(lines(1), alone=lines(1))
    assert (together.look.dash, alone.look.dash) == ("solid", "dotted")
    assert (together.group, together.look.colour) == (alone.group, alone.look.colour)


def test_many_sites_of_which_none_was_measured_are_drawn_as_nothing() -> None:
    empty = {name: (Point(0, float("nan")),) for name in lines(20)}
    assert line_figure(LineChart("AUROC.", site_series(empty), ROUND, UP)) is None


def test_every_number_stands_in_the_table_and_what_is_missing_is_a_dash() -> None:
    series = (
        Series("north", (Point(0, 0.5), Point(1, float("nan")), Point(2, 0.75)), Look()),
        Series("south", (Point(1, 0.25),), Look(), 1),
    )
    numbers = tabulate_series("The numbers.", "round", series)
    assert numbers.columns == ("round", "north", "south")
    assert numbers.rows == (("0", "0.5000", "–"), ("1", "–", "0.2500"), ("2", "0.7500", "–"))


@pytest.mark.parametrize(
    ("values", "printed"),
    [
        ((12.0, -3.0), ["12", "\u22123"]),
        ((1234.5, 0.25), ["1,234", "0.25"]),  # not "0"
        ((123.25, 1e-9), ["123.2", "1e-09"]),
        ((0.5, 1e300), ["0.5000", "–"]),
        ((float("inf"), float("nan")), ["–", "–"]),
    ],
)
def test_the_numbers_of_a_table_have_the_same_decimals(
    values: tuple[float, float], printed: list[str]
) -> None:
    one = Series("north", tuple(Point(n, value) for n, value in enumerate(values)), Look())
    assert [row[1] for row in tabulate_series("", "round", (one,)).rows] == printed


def test_bars_are_tabulated_by_round_and_part() -> None:
    chart = BarChart("Megabytes.", ("to", "from"), (Bar("1", (2.0, 1.5)),), "megabytes", "round")
    figure = column_figure(chart, tabulate_bars("Megabytes.", chart))
    assert figure is not None
    assert words_of(figure.html).endswith("round to from 1 2.000 1.500")


def test_the_style_sheet_can_hide_as_many_groups_as_the_legend_offers() -> None:
    hidden = re.findall(r"\.k(\d+) input:not\(:checked\)\) \.s(\d+)", read_style())
    assert hidden == [(str(n), str(n)) for n in range(HIDEABLE)]
    html = html_of(site_series(lines(3), group=HIDEABLE - 2))
    assert html.count("<input") == 2


def test_one_line_or_one_part_needs_no_legend() -> None:
    assert "<ul" not in html_of(site_series(lines(1)))
    figure = bar_figure(BarChart("Patients.", ("all",), (Bar("north", (3.0,)),), "patients"))
    assert figure is not None
    assert "<ul" not in figure.html


def test_hostile_names_are_text_in_legend_caption_and_table() -> None:
    name = "</figure><script>alert(1)</script><img src=x onerror=alert(1)>"
    series = (Series(name, (Point(0, 0.5),), Look()), Series("b", (Point(0, 0.6),), Look(), 1))
    numbers = tabulate_series(name, name, series)
    figure = line_figure(LineChart(name, series, Axis(name), Axis(name)), numbers)
    bars = bar_figure(BarChart(name, (name, name), (Bar(name, (1, 1)),), name))
    assert figure is not None
    assert bars is not None
    for html in (figure.html, bars.html):
        assert "<script" not in html
        assert "<img" not in html
        assert html.count("</figure>") == 1
        assert name in words_of(html)


# --- Colours ----------------------------------------------------------------------------------


def _luminance(colour: str) -> float:
    """Return the relative luminance of ``#rrggbb`` (WCAG 2.2)."""
    parts = [part / 255 for part in bytes.fromhex(colour.removeprefix("#"))]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_line_stands_out_from_the_page_in_light_and_in_dark() -> None:
    style = read_style()
    pages = re.findall(r"--page: (#\w+);", style)
    for name in (*(f"series-{n}" for n in range(len(COLOURS))), "muted"):
        for colour, page in zip(re.findall(rf"--{name}: (#\w+);", style), pages, strict=True):
            dark, light = sorted((_luminance(colour), _luminance(page)))
            # WCAG 2.2, 1.4.11: 3 to 1 for what is needed to understand a graphic.
            assert (light + 0.05) / (dark + 0.05) >= 3, f"{name} {colour} on {page}"
