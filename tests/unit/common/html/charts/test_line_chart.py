"""What is drawn lies where the data says, and nothing that a name holds becomes markup."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.common.html.charts.axes import Axis
from wardround.common.html.charts.line_chart import LineChart, Point, Series, draw_line_chart
from wardround.common.html.charts.looks import Look, site_look

NS = "{http://www.w3.org/2000/svg}"
ROUND = Axis("round", "whole")
DOTS = Look(dash="none")
HOSTILE = "</title></svg><script>alert('1')</script>\"&amp;\x00\x1b\ud800"


def series(*values: float, name: str = "north", **more: object) -> Series:
    points = tuple(Point(float(n), value) for n, value in enumerate(values))
    return Series(name, points, **{"look": Look(), **more})


def chart_of(*lines: Series, across: Axis = ROUND, **more: object) -> LineChart:
    return LineChart("AUROC by round", lines, across, Axis("AUROC"), **more)


def draw(*lines: Series, **more: object) -> ElementTree.Element:
    return ElementTree.fromstring(draw_line_chart(chart_of(*lines, **more)))


def marks(picture: ElementTree.Element) -> dict[str, tuple[float, float]]:
    """Return where each mark lies, by what it tells."""
    found = {}
    for path in picture.iter(f"{NS}path"):
        if path.get("class") == "mark":
            x, y = re.match(r"translate\(([\d.-]+) ([\d.-]+)\)", path.get("transform", "")).groups()
            found[path.findtext(f"{NS}title") or ""] = (float(x), float(y))
    return found


def strokes(picture: ElementTree.Element) -> list[str]:
    return [p.get("d", "") for p in picture.iter(f"{NS}path") if p.get("class") == "stroke"]


def axis_words(picture: ElementTree.Element) -> dict[str, tuple[float, float]]:
    texts = picture.iterfind(f".//{NS}g[@class='axes']//{NS}text")
    return {t.text or "": (float(t.get("x", "")), float(t.get("y", ""))) for t in texts}


def test_points_lie_between_the_ticks_that_hold_them() -> None:
    picture = draw(series(0.2, 0.5, 1.0))
    places, words = marks(picture), axis_words(picture)
    up = {label: words[label][1] - 4.5 for label in ("0.2", "0.4", "0.6", "1.0")}
    assert places["north: round 0, 0.2"] == pytest.approx((words["0"][0], up["0.2"]), abs=0.11)
    assert places["north: round 1, 0.5"] == pytest.approx(
        (words["1"][0], (up["0.4"] + up["0.6"]) / 2), abs=0.11
    )
    assert places["north: round 2, 1"] == pytest.approx((words["2"][0], up["1.0"]), abs=0.11)


def test_a_value_that_is_not_a_number_is_a_gap() -> None:
    picture = draw(series(0.1, 0.2, math.nan, 0.3, math.inf, 0.4))
    (path,) = strokes(picture)
    assert path.count("M") == 3
    assert path.endswith("h0")  # a single value between gaps is a dot
    assert len(marks(picture)) == 4
    assert "nan" not in draw_line_chart(chart_of(series(0.1, math.nan)))


def test_nothing_to_draw_is_no_picture() -> None:
    assert draw_line_chart(chart_of()) == ""
    assert draw_line_chart(chart_of(series(math.nan, math.nan))) == ""
    assert draw_line_chart(chart_of(series(0.5), across=Axis("rate", "log"))) == ""  # at 0


def test_names_from_others_are_text_and_nothing_else() -> None:
    line = Series(HOSTILE, (Point(0, 0.1, note=HOSTILE), Point(1, 0.2)), Look(), end_label=HOSTILE)
    chart = LineChart(HOSTILE, (line,), Axis(HOSTILE), Axis(HOSTILE))
    text = draw_line_chart(chart)
    picture = ElementTree.fromstring(text)
    assert {element.tag.removeprefix(NS) for element in picture.iter()} == {
        *("svg", "title", "desc", "g", "path", "text")
    }
    assert "<script" not in text
    shown = HOSTILE.translate(dict.fromkeys((0, 0x1B, 0xD800), "\ufffd"))
    assert picture.get("aria-label") == shown


@given(
    st.lists(
        st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=6), min_size=1, max_size=4
    )
)
def test_any_numbers_make_a_picture_that_stays_in_its_frame(lines: list[list[float]]) -> None:
    text = draw_line_chart(chart_of(*(series(*values) for values in lines)))
    if not text:
        return
    for x, y in marks(ElementTree.fromstring(text)).values():
        assert 0 <= x <= 480
        assert 0 <= y <= 310


def test_an_interval_reaches_from_its_low_to_its_high_end() -> None:
    points = (Point(0, 0.5, 0.0, 1.0), Point(1, 0.5))
    picture = draw(Series("north", points, Look()))
    (bar,) = (p for p in picture.iter(f"{NS}path") if p.get("class") == "interval")
    words = axis_words(picture)
    low, high = re.match(r"M[\d.]+ ([\d.]+)V([\d.]+)", bar.get("d", "")).groups()
    assert float(low) == pytest.approx(words["0.0"][1] - 4.5, abs=0.11)
    assert float(high) == pytest.approx(words["1.0"][1] - 4.5, abs=0.11)
    assert "north: round 0, 0.5 (0 to 1)" in marks(picture)


def test_a_stepped_line_holds_a_value_until_the_next() -> None:
    (path,) = strokes(draw(series(0.1, 0.2, is_stepped=True)))
    assert re.fullmatch(r"M[\d.]+ [\d.]+H[\d.]+V[\d.]+", path)


def test_points_without_a_line_have_marks_only() -> None:
    picture = draw(series(0.1, 0.2, look=DOTS))
    assert strokes(picture) == []
    assert len(marks(picture)) == 2


def test_labels_at_the_ends_of_lines_do_not_overlap() -> None:
    ends = [series(0.5, 0.9 + n / 1000, name=f"site-{n}", end_label=f"site-{n}") for n in range(8)]
    picture = draw(*ends, series(0.0, 0.0))
    places = sorted(
        float(text.get("y", ""))
        for group in picture.iter(f"{NS}g")
        if (group.get("class") or "").startswith("end")
        for text in group.iter(f"{NS}text")
    )
    assert len(places) == 8
    assert all(other - one >= 16.9 for one, other in pairwise(places))
    assert all(0 < place < 310 for place in places)


@pytest.mark.parametrize("last", [1, 7, 30, 1000, 123456])
def test_numbers_below_an_axis_do_not_overlap_on_a_narrow_page(last: int) -> None:
    line = Series("north", (Point(0, 0.1), Point(last, 0.2)), Look())
    words = axis_words(draw(line))
    below = sorted((x, len(t)) for t, (x, y) in words.items() if y > 270 and t != "round")
    assert len(below) >= 2
    for (x, letters), (next_x, next_letters) in pairwise(below):
        assert next_x - x >= 9 * (letters + next_letters) / 2


def test_crowded_names_stand_at_a_slant_and_are_whole_on_hover() -> None:
    names = tuple(f"[16, 32, 64, 128, {n}]" for n in range(5))
    line = Series("finished", (Point(4, 0.1), Point(0, 0.2)), DOTS)
    picture = draw(line, across=Axis("model.features", "named", names))
    slanted = [g for g in picture.iter(f"{NS}g") if "rotate" in (g.get("transform") or "")]
    assert [g.findtext(f"{NS}text/{NS}title") for g in slanted] == list(names)
    assert "finished: model.features [16, 32, 64, 128, 4], 0.1" in marks(picture)


def test_a_log_axis_leaves_out_what_it_cannot_hold() -> None:
    points = tuple(Point(x, 0.5) for x in (0.0, 0.001, 0.1))
    picture = draw(Series("finished", points, DOTS), across=Axis("rate", "log"))
    words, places = axis_words(picture), marks(picture)
    assert len(places) == 2
    assert places["finished: rate 0.001, 0.5"][0] == pytest.approx(words["0.001"][0], abs=0.11)


def test_a_long_chart_has_not_too_many_marks() -> None:
    long = [series(*[0.5] * 2000, name=f"{n}", look=site_look(n)) for n in range(4)]
    assert 300 < len(draw_line_chart(chart_of(*long)).split('class="mark"')) < 1000


def test_the_picture_is_described_in_words() -> None:
    described = draw(series(0.5, 0.75)).findtext(f"{NS}desc") or ""
    assert "Upwards AUROC, from 0.5 to 0.75." in described
    assert "Across round, from 0 to 1." in described
    assert "north ends at 0.75." in described


def test_a_round_is_marked_from_top_to_bottom_where_it_is_on_the_axis() -> None:
    text = draw_line_chart(chart_of(series(0.1, 0.2), upright=1))
    assert text.count('class="upright"') == 1
    assert 'class="upright"' not in draw_line_chart(chart_of(series(0.1, 0.2), upright=9))
