import re

import pytest

from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.bar_chart import Bar, BarChart, draw_column_chart
from wardround.common.html.charts.line_chart import LineChart, Point, Series, draw_line_chart
from wardround.common.html.charts.looks import Look

ONE = (0.0, 1.0)


def series(points: int, **changes: int) -> Series:
    found = tuple(Point(0.4 + index / 1000, 0.5) for index in range(points))
    return Series("model", found, Look(), **changes)


def test_an_axis_with_a_span_shows_all_of_it_whatever_the_values_are() -> None:
    chart = LineChart("chart", (series(3),), Axis("across", span=ONE), Axis("up", span=ONE))
    drawn = draw_line_chart(chart)
    assert drawn.count(">1.0</text>") == 2
    assert drawn.count(">0.0</text>") == 2


def test_a_square_chart_is_as_high_as_it_is_wide() -> None:
    points = (Point(0.0, 0.0), Point(1.0, 1.0))
    diagonal = Series("diagonal", points, Look(marker=None))
    axes = Axis("across", span=ONE), Axis("up", span=ONE)
    drawn = draw_line_chart(LineChart("chart", (diagonal,), *axes, is_square=True))
    found = re.search(r'class="stroke" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', drawn)
    assert found is not None
    left, bottom, right, top = map(float, found.groups())
    assert right - left == pytest.approx(bottom - top, abs=0.2)


@pytest.mark.parametrize(("most", "marked"), [(0, 60), (6, 6), (100, 60)])
def test_a_curve_of_many_points_is_marked_at_some(most: int, marked: int) -> None:
    chart = LineChart("chart", (series(60, most_marks=most),), Axis("x"), Axis("y"))
    assert draw_line_chart(chart).count('class="mark"') == marked


def test_bars_of_numbers_that_are_ten_apart_are_ten_wide() -> None:
    bars = tuple(Bar(str(number), (5.0,)) for number in (5, 15, 25))
    drawn = draw_column_chart(BarChart("chart", ("part",), bars, "cases", "percent"))
    widths = [float(width) for width in re.findall(r'class="box"[^>]* width="([\d.]+)"', drawn)]
    assert len(widths) == 3
    assert min(widths) > 80
