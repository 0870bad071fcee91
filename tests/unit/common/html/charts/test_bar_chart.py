import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from wardround.common.html.charts.bar_chart import (
    Bar,
    BarChart,
    draw_bar_chart,
    draw_column_chart,
)

NS = "{http://www.w3.org/2000/svg}"
USES = ("train", "test")


def boxes(text: str) -> dict[str, dict[str, float]]:
    """Return the sides of each box, by what it tells."""
    return {
        rect.findtext(f"{NS}title") or "": {
            side: float(rect.get(side, "")) for side in ("x", "y", "width", "height")
        }
        for rect in ElementTree.fromstring(text).iter(f"{NS}rect")
    }


def texts(text: str) -> list[str]:
    return [found.text or "" for found in ElementTree.fromstring(text).iter(f"{NS}text")]


def chart_of(*bars: Bar, **more: str) -> BarChart:
    return BarChart("Patients", USES, bars, "patients", **more)


def test_parts_are_as_long_as_their_numbers_and_end_to_end() -> None:
    drawn = boxes(draw_bar_chart(chart_of(Bar("north", (30, 10)), Bar("south", (5, 0)))))
    train, test = drawn["north, train: 30 patients"], drawn["north, test: 10 patients"]
    assert train["width"] == pytest.approx(3 * test["width"], abs=0.2)
    assert test["x"] == pytest.approx(train["x"] + train["width"], abs=0.11)
    assert drawn["south, train: 5 patients"]["width"] == pytest.approx(test["width"] / 2, abs=0.2)
    assert "south, test: 0 patients" not in drawn


def test_a_bar_ends_with_its_sum_or_with_what_it_is_told() -> None:
    shown = texts(draw_bar_chart(chart_of(Bar("north", (30, 12)), Bar("south", (5, 3), "7"))))
    assert "42" in shown
    assert "7" in shown
    assert "8" not in shown


def test_what_is_no_count_is_left_out() -> None:
    drawn = boxes(draw_bar_chart(chart_of(Bar("north", (math.nan, 2)), Bar("south", (-1, 1)))))
    assert list(drawn) == ["north, test: 2 patients", "south, test: 1 patients"]
    assert draw_bar_chart(chart_of(Bar("north", (0, math.nan)))) == ""
    assert draw_column_chart(chart_of(across="round")) == ""


def test_64_sites_have_a_row_each() -> None:
    bars = [Bar(f"site-{n}", (20 + n, 5)) for n in range(64)]
    text = draw_bar_chart(chart_of(*bars))
    rows = sorted({box["y"] for box in boxes(text).values()})
    assert len(rows) == 64
    assert min(b - a for a, b in pairwise(rows)) >= 20


def test_a_heading_stands_above_its_bars() -> None:
    bars = (Bar("train", (3, 0), heading="north"), Bar("test", (0, 2)))
    text = draw_bar_chart(chart_of(*bars))
    assert texts(text).count("north") == 1
    assert set(boxes(text)) == {"north, train, train: 3 patients", "north, test, test: 2 patients"}


def test_columns_stand_on_the_axis_one_upon_the_other() -> None:
    bars = [Bar(str(n), (2.0, 1.0)) for n in range(1, 13)]
    text = draw_column_chart(chart_of(*bars, across="round"))
    drawn = boxes(text)
    low, high = drawn["round 3, train: 2 patients"], drawn["round 3, test: 1 patients"]
    assert low["height"] == pytest.approx(2 * high["height"], abs=0.2)
    assert high["y"] + high["height"] == pytest.approx(low["y"], abs=0.2)
    assert low["x"] == high["x"]
    assert len({box["x"] for box in drawn.values()}) == 12
    assert all(box["x"] > 0 and box["x"] + box["width"] < 480 for box in drawn.values())
    assert [t for t in texts(text) if t in ("0", "13")] == ["0"]  # of the counts, not of rounds


def test_names_from_others_are_text() -> None:
    name = "<b>&\"'</title>"
    chart = BarChart(name, (name, "x"), (Bar(name, (1, 1), heading=name),), name, across=name)
    text = draw_bar_chart(chart)
    assert "<b>" not in text
    assert f"{name}, {name}, {name}: 1 {name}" in boxes(text)
