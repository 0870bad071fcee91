"""The discrete Gaussian is drawn as its probabilities say, by whole numbers alone."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare, kstest

from wardround.common.privacy.distributed_noise import discrete_gaussian as drawing
from wardround.common.privacy.distributed_noise.discrete_gaussian import (
    discrete_gaussian,
    half_square,
)
from wardround.common.privacy.secure_random import Randomness

UNIT = 2**61


def keyed(number: int) -> Randomness:
    return Randomness(number.to_bytes(32, "big"))


def probabilities(bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return whole numbers and their probabilities, from the definition."""
    scale = 2**bits
    numbers = np.arange(-40 * scale, 40 * scale + 1)
    weights = np.exp(-(numbers.astype(float) ** 2) / (2 * scale**2))
    return numbers, weights / weights.sum()


@pytest.mark.parametrize("bits", [0, 1, 2, 5])
def test_each_number_comes_as_often_as_its_probability(bits: int) -> None:
    drawn = discrete_gaussian(60_000, bits, keyed(bits))
    numbers, chances = probabilities(bits)
    near = np.abs(numbers) <= 3 * 2**bits
    counts = np.array([(drawn == number).sum() for number in numbers[near]])
    expected = chances[near] * len(drawn)
    rest = len(drawn) - counts.sum(), len(drawn) - expected.sum()
    found = chisquare(np.append(counts, rest[0]), np.append(expected, rest[1]))
    assert found.pvalue > 1e-4


@pytest.mark.parametrize("bits", [10, 30])
def test_a_wide_one_has_the_moments_of_the_normal_distribution(bits: int) -> None:
    drawn = discrete_gaussian(100_000, bits, keyed(bits)) / 2**bits
    assert abs(drawn.mean()) < 0.015
    assert drawn.var() == pytest.approx(1, abs=0.02)
    assert (drawn**4).mean() == pytest.approx(3, abs=0.15)
    assert abs((drawn**3).mean()) < 0.1
    assert kstest(drawn + 2.0**-bits / 2, "norm").pvalue > 1e-4


@given(st.integers(0, 30), st.integers(0, 2**36))
def test_the_exponent_of_a_coin_is_the_fraction_itself(bits: int, distance: int) -> None:
    distance %= 40 << bits
    ones, places = half_square(np.array([distance]), bits)
    exact = Fraction(distance**2, 2 * 4**bits)
    assert Fraction(int(ones[0])) + Fraction(int(places[0]), UNIT) == exact
    assert 0 <= int(places[0]) < UNIT


@pytest.mark.parametrize("exponent", [0.0, 0.001, 0.5, 1.0])
def test_a_coin_falls_with_the_exponential_of_its_exponent(exponent: float) -> None:
    count = 50_000
    parts = np.full(count, int(exponent * UNIT), dtype=np.uint64)
    coins = drawing._falls(parts, keyed(7))
    assert binomtest(int(coins.sum()), count, float(np.exp(-exponent))).pvalue > 1e-4


@pytest.mark.parametrize("whole", [0, 1, 3])
def test_a_coin_of_a_whole_exponent_falls_so_too(whole: int) -> None:
    count = 50_000
    coins = drawing._falls_whole(np.full(count, whole), keyed(8))
    assert binomtest(int(coins.sum()), count, float(np.exp(-whole))).pvalue > 1e-4


@pytest.mark.parametrize("sides", [2, 3, 7])
def test_a_coin_of_one_in_so_many_is_drawn_without_bias(sides: int) -> None:
    coins = drawing._one_in(sides, 50_000, keyed(9))
    assert binomtest(int(coins.sum()), 50_000, 1 / sides).pvalue > 1e-4


def test_the_operating_systems_noise_never_repeats() -> None:
    first, second = (discrete_gaussian(50, 30, Randomness()) for _ in range(2))
    assert len(np.intersect1d(first, second)) == 0
    assert (discrete_gaussian(50, 30, keyed(1)) == discrete_gaussian(50, 30, keyed(1))).all()


def test_any_count_is_drawn_and_a_deviation_too_wide_is_refused() -> None:
    assert [len(discrete_gaussian(count, 3, keyed(2))) for count in (0, 1, 65_537)] == [
        0,
        1,
        65_537,
    ]
    with pytest.raises(ValueError, match="use 0 to 30"):
        discrete_gaussian(1, 31, keyed(1))
