import math

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from wardround.common.errors import InputError
from wardround.common.statistics.curves import count_scores
from wardround.common.statistics.operating_points import (
    choose_threshold,
    operate,
    patient_share,
    predictive_values,
)


def drawn(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a model that is right more often than not, and the truth."""
    generator = np.random.default_rng(seed)
    truth = generator.random(number) < 0.35
    return 1 / (1 + np.exp(-generator.normal(1.2 * truth - 0.8, 1.3))), truth


POOLED = drawn(1, 1450)
SCORES = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
TRUTH = np.array([0, 0, 1, 0, 0, 1, 1, 1], dtype=bool)
ALONE = np.arange(8)


def test_the_threshold_reaches_the_aim_at_the_least_cost_of_the_other() -> None:
    counts = count_scores(SCORES, TRUTH)
    assert choose_threshold(counts, "sensitivity", 0.75) == 0.6
    assert choose_threshold(counts, "sensitivity", 0.76) == 0.3
    assert choose_threshold(counts, "specificity", 0.75) == 0.5
    assert choose_threshold(counts, "specificity", 0.9) == 0.6


@pytest.mark.parametrize(("aim", "wanted"), [("sensitivity", 0.9), ("specificity", 0.95)])
def test_on_its_own_patients_the_threshold_has_what_was_wanted(aim: str, wanted: float) -> None:
    threshold = choose_threshold(count_scores(*POOLED), aim, wanted)
    found = operate(*POOLED, np.arange(len(POOLED[0])), threshold)
    assert 0 <= getattr(found, aim).value - wanted < 0.01


def test_a_specificity_that_no_score_reaches_reports_nothing() -> None:
    truth = SCORES < 0.75  # the highest score is of one who does not have it
    threshold = choose_threshold(count_scores(SCORES, truth), "specificity", 0.99)
    assert threshold > 0.8
    assert operate(SCORES, truth, ALONE, threshold).flagged.value == 0


def test_counts_are_those_of_the_table() -> None:
    found = operate(SCORES, TRUTH, ALONE, 0.5)
    assert found.sensitivity.value == 3 / 4
    assert found.specificity.value == 3 / 4
    assert found.ppv.value == 3 / 4
    assert found.npv.value == 3 / 4
    assert found.flagged.value == 1 / 2
    assert found.sensitivity.examinations == found.sensitivity.patients == 4


def test_without_patients_of_both_kinds_there_is_no_threshold_and_no_number() -> None:
    counts = count_scores(SCORES, np.ones(8, dtype=bool))
    threshold = choose_threshold(counts, "sensitivity", 0.9)
    assert math.isnan(threshold)
    found = operate(SCORES, TRUTH, ALONE, threshold)
    assert math.isnan(found.sensitivity.value)
    assert math.isnan(predictive_values(found, 0.1)[0].value)


def test_an_interval_of_independent_patients_is_wilsons() -> None:
    values = np.arange(40) < 31
    share = patient_share(values, np.arange(40))
    low, high = proportion_confint(31, 40, method="wilson")
    assert (share.low, share.high) == pytest.approx((low, high))


def test_many_images_of_a_patient_do_not_narrow_the_interval() -> None:
    values, patients = np.arange(40) < 31, np.arange(40)
    once = patient_share(values, patients)
    often = patient_share(np.repeat(values, 20), np.repeat(patients, 20))
    assert often.examinations == 800
    assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.03)


def test_a_share_of_one_is_as_sure_as_there_are_patients() -> None:
    few = patient_share(np.ones(50, bool), np.repeat(np.arange(5), 10))
    assert few.value == few.high == 1.0
    assert few.low == pytest.approx(proportion_confint(5, 5, method="wilson")[0])


def test_predictive_values_follow_the_stated_prevalence() -> None:
    found = operate(*POOLED, np.arange(len(POOLED[0])), 0.5)
    here = float(POOLED[1].mean())
    ppv, npv = predictive_values(found, here)
    assert ppv.value == pytest.approx(found.ppv.value)
    assert npv.value == pytest.approx(found.npv.value)
    assert ppv.low == pytest.approx(found.ppv.low, abs=0.02)
    rare, _ = predictive_values(found, 0.01)
    hit, alarm = found.sensitivity.value, 1 - found.specificity.value
    assert rare.value == pytest.approx(hit * 0.01 / (hit * 0.01 + alarm * 0.99))
    assert rare.low < rare.value < rare.high < 0.1


def test_intervals_of_predictive_values_hold_the_truth_in_95_of_100_draws() -> None:
    truth_ppv = _true_ppv(0.5, 0.05)
    held = 0
    for seed in range(400):
        scores, labels = drawn(seed, 150)
        ppv, _ = predictive_values(operate(scores, labels, np.arange(150), 0.5), 0.05)
        held += ppv.low <= truth_ppv <= ppv.high
    assert 0.925 <= held / 400 <= 0.985


def _true_ppv(threshold: float, prevalence: float) -> float:
    scores, labels = drawn(99, 400_000)
    found = operate(scores, labels, np.arange(400_000), threshold)
    return predictive_values(found, prevalence)[0].value


@pytest.mark.parametrize("outside", [0.0, 1.0, 1.5, float("nan")])
def test_what_is_no_share_is_refused(outside: float) -> None:
    with pytest.raises(InputError, match=r"must be in \(0, 1\)"):
        choose_threshold(count_scores(SCORES, TRUTH), "sensitivity", outside)
    with pytest.raises(InputError, match=r"must be in \(0, 1\)"):
        predictive_values(operate(SCORES, TRUTH, ALONE, 0.5), outside)
