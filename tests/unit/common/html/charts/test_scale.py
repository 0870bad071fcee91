import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardround.common.html.charts.scale import (
    fitted_scale,
    is_drawable,
    linear_scale,
    log_scale,
    plain_number,
    tick_label,
)

drawable = st.floats(-1e12, 1e12) | st.floats(-1e299, 1e299) | st.floats(-1e-12, 1e-12)


@given(st.lists(drawable, min_size=1, max_size=5), st.booleans())
def test_ticks_are_round_evenly_apart_and_hold_every_value(
    values: list[float], from_zero: bool
) -> None:
    scale = linear_scale(values, from_zero=from_zero)
    numbers = [tick.value for tick in scale.ticks]
    assert 2 <= len(numbers) <= 9
    # Within what a float can tell apart over such a span.
    assert all(-1e-9 <= scale.place(value) <= 1 + 1e-9 for value in values)
    step = (numbers[-1] - numbers[0]) / (len(numbers) - 1)
    leading = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(leading - round_) for round_ in (1, 2, 2.5, 5, 10)) < 1e-3
    if from_zero:
        assert numbers[0] <= 0 <= numbers[-1]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.26, 0.95], ["0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([-4.0, 900.0], ["\u2212200", "0", "200", "400", "600", "800", "1,000"]),
        ([0.5, 0.5], ["0.44", "0.46", "0.48", "0.50", "0.52", "0.54", "0.56"]),
        ([0.0], ["\u22121.0", "\u22120.5", "0.0", "0.5", "1.0"]),
        ([0.0, 0.9], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([0.0, 0.11], ["0.000", "0.025", "0.050", "0.075", "0.100", "0.125"]),
    ],
)
def test_ticks_are_written_with_as_many_digits_as_they_need(
    values: list[float], labels: list[str]
) -> None:
    assert [tick.label for tick in linear_scale(values).ticks] == labels


@pytest.mark.parametrize(
    ("last", "labels"),
    [
        (1, ["0", "1"]),
        (8, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]),
        (30, ["0", "5", "10", "15", "20", "25", "30"]),
        (500, ["0", "50", "100", "150", "200", "250", "300", "350", "400", "450", "500"]),
    ],
)
def test_rounds_have_whole_ticks(last: int, labels: list[str]) -> None:
    scale = fitted_scale([0, last], 12, is_whole=True)
    assert [tick.label for tick in scale.ticks] == labels
    assert (scale.place(0), scale.place(last)) == (0.0, 1.0)


def test_one_round_has_an_axis_too() -> None:
    assert [tick.label for tick in fitted_scale([3], 12, is_whole=True).ticks] == ["3", "4"]


def test_a_log_scale_gives_each_decade_the_same_room() -> None:
    scale = log_scale([2e-4, 0.07])
    assert [tick.label for tick in scale.ticks] == ["0.0001", "0.001", "0.01", "0.1"]
    assert [scale.place(10.0**n) for n in (-4, -3, -2, -1)] == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_few_decades_have_ticks_between() -> None:
    assert [tick.label for tick in log_scale([1.5, 4]).ticks] == ["1", "2", "5", "10"]


@given(st.lists(st.floats(0, 1e299, exclude_min=True), min_size=1, max_size=3))
def test_a_log_scale_takes_any_value_above_zero(values: list[float]) -> None:
    scale = log_scale(values)
    assert len(scale.ticks) <= 8
    assert all(math.isfinite(scale.place(value)) for value in values)


def test_what_has_no_place_is_known() -> None:
    no_place = (math.nan, math.inf, -math.inf, 1e305)
    assert [is_drawable(value) for value in (*no_place, -4.0)] == [False] * 4 + [True]


def test_numbers_are_read_with_a_true_minus() -> None:
    assert [plain_number(v) for v in (3.0, -0.51234, 12345.0, 1e-7, math.nan)] == [
        "3",
        "\u22120.5123",
        "12,345",
        "1e-07",
        "–",
    ]
    assert tick_label(-2.5, 2.5) == "\u22122.5"
