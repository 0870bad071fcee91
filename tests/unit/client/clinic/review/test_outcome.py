"""Did choosing beat the lot? Signs, intervals, and the word that is said."""

import math

import pytest

from wardround.client.clinic.review.outcome import compare_repeats, compare_yields


def test_a_steady_gain_beats_random_and_a_loss_does_worse() -> None:
    better = compare_repeats([0.9, 0.91, 0.92, 0.9], [0.8, 0.8, 0.83, 0.81], "AUROC")
    assert better.verdict == "better"
    assert better.difference.value == pytest.approx(0.0975)
    worse = compare_repeats([0.8, 0.8, 0.83, 0.81], [0.9, 0.91, 0.92, 0.9], "AUROC")
    assert worse.verdict == "worse"
    assert "did worse than random: -0.0975" in worse.in_words("entropy")


def test_a_difference_that_chance_makes_is_no_gain() -> None:
    found = compare_repeats([0.9, 0.7, 0.8], [0.8, 0.8, 0.8], "AUROC")
    assert found.verdict == "no gain"
    assert "did not beat random" in found.in_words()
    one = compare_repeats([0.9], [0.1], "AUROC")
    assert one.verdict == "no gain"
    assert "too few" in one.in_words()


def test_the_interval_of_two_yields_is_newcombes() -> None:
    # Newcombe 1998, Statistics in Medicine 17:873, table II, case (a): 56/70 and 48/80.
    found = compare_yields((56, 70), (48, 80)).difference
    assert found.value == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0524, abs=1e-4)
    assert found.high == pytest.approx(0.3339, abs=1e-4)


def test_an_arm_that_nobody_read_tells_nothing() -> None:
    found = compare_yields((0, 0), (3, 5))
    assert math.isnan(found.difference.value)
    assert found.verdict == "no gain"
