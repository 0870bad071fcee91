import math

import numpy as np
import pytest

from wardround.common.errors import InputError
from wardround.common.statistics.decisions.curves import count_scores
from wardround.common.statistics.decisions.operating_points import (
    answer_sums,
    choose_threshold,
    operate,
    operation_sums,
    predictive_values,
)


def drawn(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a model that is right more often than not, and the truth."""
    generator = np.random.default_rng(seed)
    truth = generator.random(number) < 0.35
    return 1 / (1 + np.exp(-generator.normal(1.2 * truth - 0.8, 1.3))), truth


POOLED = drawn(1, 1450)
EVERYONE = np.arange(1450)
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
    found = operate(operation_sums(*POOLED, EVERYONE, threshold))
    assert 0 <= getattr(found, aim).value - wanted < 0.01


def test_a_specificity_that_no_score_reaches_reports_nothing() -> None:
    truth = SCORES < 0.75  # the highest score is of one who does not have it
    threshold = choose_threshold(count_scores(SCORES, truth), "specificity", 0.99)
    assert threshold > 0.8
    assert operate(operation_sums(SCORES, truth, ALONE, threshold)).flagged.value == 0


def test_counts_are_those_of_the_table() -> None:
    found = operate(operation_sums(SCORES, TRUTH, ALONE, 0.5))
    assert found.sensitivity.value == 3 / 4
    assert found.specificity.value == 3 / 4
    assert found.ppv.value == 3 / 4
    assert found.npv.value == 3 / 4
    assert found.flagged.value == 1 / 2
    assert found.prevalence.value == 1 / 2
    assert found.sensitivity.patients == 8


def test_without_patients_of_both_kinds_there_is_no_threshold_and_no_number() -> None:
    positives = np.ones(8, dtype=bool)
    assert math.isnan(choose_threshold(count_scores(SCORES, positives), "sensitivity", 0.9))
    sums = operation_sums(SCORES, positives, ALONE, 0.5)
    assert math.isnan(operate(sums).specificity.value)
    assert all(math.isnan(one.value) for one in predictive_values(sums, 0.1))


def test_many_images_of_a_patient_do_not_narrow_the_interval() -> None:
    once = operate(operation_sums(*POOLED, EVERYONE, 0.5)).sensitivity
    often = [np.repeat(values, 20) for values in (*POOLED, EVERYONE)]
    repeated = operate(operation_sums(*often, 0.5)).sensitivity
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), abs=1e-3)


def test_a_share_of_one_of_few_patients_is_not_certain() -> None:
    sums = answer_sums(np.ones(50, bool), np.ones(50, bool), np.repeat(np.arange(5), 10))
    found = operate(sums).sensitivity
    assert found.value == found.high == 1.0
    assert found.low < 0.6


def test_sums_of_two_sites_are_those_of_their_patients_together() -> None:
    parts = np.split(EVERYONE, [900])
    sites = [operation_sums(*(v[some] for v in (*POOLED, EVERYONE)), 0.5) for some in parts]
    together = operation_sums(*POOLED, EVERYONE, 0.5)
    assert operate(sites[0].plus(sites[1])) == operate(together)


def test_predictive_values_follow_the_stated_prevalence() -> None:
    sums = operation_sums(*POOLED, EVERYONE, 0.5)
    found = operate(sums)
    ppv, npv = predictive_values(sums, float(POOLED[1].mean()))
    assert ppv.value == pytest.approx(found.ppv.value)
    assert npv.value == pytest.approx(found.npv.value)
    assert ppv.low == pytest.approx(found.ppv.low, abs=0.02)
    rare, _ = predictive_values(sums, 0.01)
    hit, alarm = found.sensitivity.value, 1 - found.specificity.value
    assert rare.value == pytest.approx(hit * 0.01 / (hit * 0.01 + alarm * 0.99))
    assert rare.low < rare.value < rare.high < 0.1


def test_a_perfect_threshold_of_few_patients_has_predictive_values_that_are_not_certain() -> None:
    sums = answer_sums(TRUTH, TRUTH, ALONE)
    ppv, npv = predictive_values(sums, 0.1)
    assert ppv.value == npv.value == 1.0
    assert ppv.low < 0.7
    assert npv.low < 0.99


def test_intervals_of_predictive_values_hold_the_truth_in_95_of_100_draws() -> None:
    """Seen: 0.9675 of 400 draws of 150 patients."""
    scores, labels = drawn(99, 400_000)
    hit, alarm = (scores[labels] >= 0.5).mean(), (scores[~labels] >= 0.5).mean()
    truth = hit * 0.05 / (hit * 0.05 + alarm * 0.95)
    held = 0
    for seed in range(400):
        ppv, _ = predictive_values(operation_sums(*drawn(seed, 150), np.arange(150), 0.5), 0.05)
        held += ppv.low <= truth <= ppv.high
    assert 0.925 <= held / 400 <= 0.985


@pytest.mark.parametrize("outside", [0.0, 1.0, 1.5, float("nan")])
def test_what_is_no_share_is_refused(outside: float) -> None:
    with pytest.raises(InputError, match=r"must be in \(0, 1\)"):
        choose_threshold(count_scores(SCORES, TRUTH), "sensitivity", outside)
    with pytest.raises(InputError, match=r"must be in \(0, 1\)"):
        predictive_values(operation_sums(SCORES, TRUTH, ALONE, 0.5), outside)
