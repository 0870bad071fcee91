"""Bland and Altman's own numbers, and intervals whose unit is the patient."""

import math

import numpy as np
import pytest

from wardround.common.statistics.agreement import bland_altman, cohen_kappa

# Peak expiratory flow by two meters, litres a minute (Bland and Altman 1986, table 1).
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_the_numbers_of_bland_and_altman() -> None:
    differences = np.array(WRIGHT, float) - np.array(MINI, float)

    found = bland_altman(differences, np.arange(17))

    assert found.bias.value == pytest.approx(-2.1, abs=0.05)  # as printed in the paper
    assert differences.std(ddof=1) == pytest.approx(38.8, abs=0.05)
    assert found.lower.value == pytest.approx(-2.1 - 1.96 * 38.8, abs=0.2)
    assert found.bias.low == pytest.approx(-22.0, abs=0.2)
    assert found.bias.high == pytest.approx(17.8, abs=0.2)
    error = 38.765 * math.sqrt(1 / 17 + 1.96**2 / 32)  # their 1999 formula
    assert found.upper.high - found.upper.value == pytest.approx(2.120 * error, rel=1e-3)


def test_slices_of_one_patient_do_not_count_as_patients() -> None:
    each = np.array([1.0, -1.0, 2.0, 0.0])
    once = bland_altman(each, np.arange(4))
    tenfold = bland_altman(np.repeat(each, 10), np.repeat(np.arange(4), 10))

    assert tenfold.bias.value == once.bias.value
    assert tenfold.patients == 4
    assert tenfold.bias.high == pytest.approx(once.bias.high)


def test_one_patient_has_no_interval() -> None:
    found = bland_altman(np.array([1.0, 3.0]), np.array([7, 7]))
    assert found.bias.value == 2.0
    assert math.isnan(found.bias.low)


def test_no_difference_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bland_altman(np.zeros(0), np.zeros(0, int))


def test_kappa_is_scikit_learns_and_its_interval_covers_the_truth() -> None:
    from sklearn.metrics import cohen_kappa_score

    generator = np.random.default_rng(0)
    chance, covered = 0.6, 0
    for _ in range(200):
        first = generator.integers(0, 3, 150)
        same = generator.random(150) < chance
        second = np.where(same, first, generator.integers(0, 3, 150))
        found = cohen_kappa(first, second)
        assert found.value == pytest.approx(cohen_kappa_score(first, second))
        covered += found.low <= chance <= found.high
    assert 180 <= covered <= 199  # 95 % of 200, give or take


def test_readers_who_say_one_class_alone_tell_nothing_of_agreement() -> None:
    assert math.isnan(cohen_kappa(np.zeros(5, np.int64), np.zeros(5, np.int64)).value)
    with pytest.raises(ValueError, match="at least one"):
        cohen_kappa(np.zeros(0, np.int64), np.zeros(0, np.int64))
