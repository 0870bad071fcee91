"""Intervals whose unit is the patient, held against formulas by hand and against the bootstrap."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from wardround.common.statistics.bootstrap import patient_weights
from wardround.common.statistics.case_metrics import (
    answer_columns,
    answer_ratios,
    case_columns,
    case_ratios,
    class_ratio,
)
from wardround.common.statistics.clustered import (
    PatientSums,
    Ratios,
    covariance,
    metric_interval,
    of_patients,
    patient_sums,
)
from wardround.common.statistics.interval import (
    Interval,
    log_interval,
    logit_interval,
    mean_interval,
    score_interval,
    t_interval,
    t_quantile,
    two_sided_p,
)
from wardround.common.statistics.multiple import holm_levels, holm_p_values
from wardround.common.statistics.paired import (
    difference_interval,
    difference_sums,
    ratio_difference,
    swap_differences,
    swap_margin,
    swap_p_value,
    with_swaps,
)
from wardround.common.statistics.power import patients_needed, rounded_patients

METRICS = ("accuracy", "balanced-accuracy", "f1")


def answered(seed: int, patients: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return patients, called and true classes of images, of three classes."""
    generator = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(patients), generator.integers(1, 9, patients))
    truth = generator.choice(3, len(numbers), p=[0.6, 0.3, 0.1])
    hard = generator.random(patients)[numbers]
    called = np.where(generator.random(len(numbers)) < 0.4 + 0.5 * hard, truth, 0)
    return numbers, called, truth


def sums_of(numbers: np.ndarray, called: np.ndarray, truth: np.ndarray) -> PatientSums:
    one_hot = [np.eye(3, dtype=bool)[part] for part in (called, truth)]
    return patient_sums(of_patients(answer_columns(*one_hot, multi_label=False), numbers))


@pytest.mark.parametrize("metric", METRICS)
def test_the_values_are_those_of_scikit_learn(metric: str) -> None:
    numbers, called, truth = answered(0)
    sums = sums_of(numbers, called, truth)
    wanted = {
        "accuracy": accuracy_score(truth, called),
        "balanced-accuracy": balanced_accuracy_score(truth, called),
        "f1": f1_score(truth, called, average="macro"),
    }
    interval = metric_interval(sums, answer_ratios(metric, sums.totals[6:], multi_label=False))
    assert interval.value == pytest.approx(wanted[metric], abs=1e-12)
    assert interval.low < interval.value < interval.high


@pytest.mark.parametrize("metric", METRICS)
def test_the_error_is_that_of_drawing_patients_again(metric: str) -> None:
    numbers, called, truth = answered(1, 200)
    one_hot = [np.eye(3, dtype=bool)[part] for part in (called, truth)]
    each = of_patients(answer_columns(*one_hot, multi_label=False), numbers)
    sums = patient_sums(each)
    ratios = answer_ratios(metric, sums.totals[6:], multi_label=False)
    drawn = ratios.value(patient_weights(200, 3000) @ each)
    assert metric_interval(sums, ratios).standard_error == pytest.approx(drawn.std(), rel=0.1)


def test_hospitals_sums_add_up_to_those_of_all_patients() -> None:
    numbers, called, truth = answered(2)
    first = numbers < 30
    parts = [sums_of(numbers[p], called[p], truth[p]) for p in (first, ~first)]
    together, whole = parts[0].plus(parts[1]), sums_of(numbers, called, truth)
    assert together.patients == whole.patients
    np.testing.assert_allclose(together.products, whole.products)
    ratios = answer_ratios("f1", whole.totals[6:], multi_label=False)
    np.testing.assert_allclose(covariance(together, ratios), covariance(whole, ratios))


def test_one_image_a_patient_gives_the_binomial_variance() -> None:
    right = np.arange(50) < 40
    columns = answer_columns(right[:, None], np.ones((50, 1), dtype=bool), multi_label=False)
    sums = patient_sums(columns)
    ratios = answer_ratios("accuracy", sums.totals[2:], multi_label=False)
    assert covariance(sums, ratios)[0, 0] == pytest.approx(0.8 * 0.2 / 49)


def test_the_same_images_twice_leave_the_interval_as_it_is() -> None:
    numbers, called, truth = answered(3)
    once = sums_of(numbers, called, truth)
    twice = sums_of(*(np.tile(part, 2) for part in (numbers, called, truth)))
    ratios = answer_ratios("accuracy", once.totals[6:], multi_label=False)
    again, before = metric_interval(twice, ratios), metric_interval(once, ratios)
    assert (again.low, again.high) == pytest.approx((before.low, before.high))


def test_a_mean_dice_of_one_case_a_patient_has_students_error() -> None:
    dice = np.random.default_rng(0).beta(8, 2, (30, 1))
    sums = patient_sums(case_columns(dice))
    interval = metric_interval(sums, case_ratios(sums.totals[1:]))
    assert interval.standard_error == pytest.approx(dice.std(ddof=1) / math.sqrt(30), rel=0.05)
    assert interval.freedom == pytest.approx(29)


def test_ten_right_of_ten_are_not_certain_and_all_stays_inside() -> None:
    sums = patient_sums(answer_columns(*np.ones((2, 10, 1), dtype=bool), multi_label=False))
    interval = metric_interval(sums, answer_ratios("accuracy", sums.totals[2:], False))
    assert interval.value == 1
    assert 0.5 < interval.low < 0.8
    assert interval.high == 1


def test_one_patient_has_no_interval() -> None:
    numbers, called, truth = answered(4)
    sums = sums_of(np.zeros_like(numbers), called, truth)
    for metric in METRICS:
        ratios = answer_ratios(metric, sums.totals[6:], multi_label=False)
        assert not metric_interval(sums, ratios).is_known


def test_a_class_of_one_patient_widens_a_mean_over_classes() -> None:
    numbers, called, truth = answered(5)
    truth, called = np.minimum(truth, 1), np.minimum(called, 1)
    called[truth == 1] = 1
    few = truth.copy()
    few[:3], called[:3] = 2, 2
    with_rare = sums_of(np.where(few == 2, 0, numbers + 1), called, few)
    without = sums_of(numbers, np.minimum(called, 1), truth)
    wide, narrow = (
        metric_interval(sums, answer_ratios("balanced-accuracy", sums.totals[6:], False))
        for sums in (with_rare, without)
    )
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_a_class_has_an_interval_of_its_own() -> None:
    numbers, called, truth = answered(6)
    sums = sums_of(numbers, called, truth)
    ratios = answer_ratios("balanced-accuracy", sums.totals[6:], multi_label=False)
    rare = metric_interval(sums, class_ratio(ratios, 2))
    common = metric_interval(sums, class_ratio(ratios, 0))
    assert rare.value == pytest.approx((called == 2)[truth == 2].mean())
    assert rare.freedom < common.freedom


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 0.5), st.integers(2, 300))
def test_an_interval_of_a_share_holds_its_value_and_stays_inside(
    value: float, error: float, patients: int
) -> None:
    made = (
        score_interval(value, error, patients - 1, patients),
        logit_interval(value, error, patients - 1, patients, 0.5 / patients),
    )
    for interval in made:
        assert 0 <= interval.low <= value + 1e-9
        assert value - 1e-9 <= interval.high <= 1


def test_a_distance_has_an_interval_above_nothing() -> None:
    interval = log_interval(4.0, 3.0, 10, 11)
    assert 0 < interval.low < 4 < interval.high
    assert log_interval(0.0, 0.0, 10, 11).low == 0


def test_a_mean_of_hospitals_has_the_error_of_independent_values() -> None:
    parts = [t_interval(0.8, 0.03, 40, 41), t_interval(0.6, 0.04, 40, 41)]
    mean = mean_interval(parts, bounded=True)
    assert (mean.value, mean.standard_error) == pytest.approx((0.7, 0.025))
    unknown = Interval(0.5, math.nan, math.nan, math.nan, math.nan, 1)
    assert not mean_interval([*parts, unknown], bounded=True).is_known


# --- Differences ------------------------------------------------------------------------------


def test_a_mean_difference_has_students_interval_and_adds_up() -> None:
    differences = np.random.default_rng(0).normal(0.1, 0.2, 40)
    sums = difference_sums(differences[:15]).plus(difference_sums(differences[15:]))
    interval = difference_interval(sums)
    error = differences.std(ddof=1) / math.sqrt(40)
    assert interval.standard_error == pytest.approx(error)
    assert interval.high - interval.value == pytest.approx(t_quantile(39) * error)
    assert not difference_interval(difference_sums(differences[:1])).is_known
    assert math.isnan(difference_interval(difference_sums(differences[:0])).value)


def test_a_paired_difference_of_one_case_a_patient_is_students() -> None:
    generator = np.random.default_rng(1)
    first, second = generator.random((2, 30, 1))
    metric = case_ratios(np.array([30.0]))
    interval = ratio_difference(case_columns(first), case_columns(second), metric)
    wanted = difference_interval(difference_sums((first - second)[:, 0]))
    assert interval.value == pytest.approx(wanted.value)
    assert interval.standard_error == pytest.approx(wanted.standard_error)


def mean(totals: np.ndarray) -> np.ndarray:
    return totals[..., 0]


@pytest.mark.parametrize(("patients", "clear"), [(1, False), (5, False), (6, True), (40, True)])
def test_a_few_patients_who_all_agree_are_not_certain(patients: int, clear: bool) -> None:
    # Of five patients who all gain, 2 of 32 swaps are as extreme: p = .0625; of six, 2 of 64.
    ones = np.ones((patients, 1))
    metric = Ratios(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.ones(1))
    first, second = np.hstack([ones, ones]), np.hstack([0.5 * ones, ones])
    drawn, tried = swap_differences(first, second, [metric.value])
    interval = with_swaps(ratio_difference(first, second, metric), drawn[0], tried)
    assert interval.value == 0.5
    told = interval.is_known and interval.low > 0
    assert told == clear
    if patients > 1:
        p = two_sided_p(interval.value, interval.standard_error, interval.freedom)
        assert p >= swap_p_value(0.5, drawn[0], tried) - 1e-9


def test_all_swaps_of_three_patients_are_counted_by_hand() -> None:
    first, second = np.array([[1.0], [2.0], [4.0]]), np.zeros((3, 1))
    drawn, tried = swap_differences(first, second, [mean])
    assert tried
    assert sorted(drawn[0]) == [-7, -5, -3, -1, 1, 3, 5, 7]
    assert swap_p_value(7.0, drawn[0], tried) == 0.25
    assert swap_p_value(5.0, drawn[0], tried) == 0.5
    assert swap_margin(drawn[0], tried) == 7


# --- Several comparisons, and how many patients -------------------------------------------------


def test_holm_adjusts_as_in_the_textbook() -> None:
    assert holm_p_values([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    levels = holm_levels([0.01, 0.04, 0.03, 0.005])
    # Two are told; the third was judged at 0.05 / 2, and so is the fourth.
    wanted = [1 - 0.05 / 3, 0.975, 0.975, 1 - 0.05 / 4]
    assert levels == pytest.approx(wanted)
    assert holm_levels([0.2]) == (0.95,)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_an_interval_leaves_nothing_out_exactly_if_holm_says_so(p_values: list[float]) -> None:
    levels, adjusted = holm_levels(p_values), holm_p_values(p_values)
    for p, level, corrected in zip(p_values, levels, adjusted, strict=True):
        if abs(corrected - 0.05) > 1e-9 and abs(p - (1 - level)) > 1e-9:
            assert (p <= 1 - level) == (corrected <= 0.05)


def test_how_many_patients_a_statement_takes() -> None:
    # By hand: ((1.96 + 0.8416) x 0.1 / 0.05)² = 31.4 patients, each with a spread of 0.1.
    assert patients_needed(0.1, 1, 0.05) == 32
    assert patients_needed(0.02, 25, 0.05) == 32
    assert patients_needed(0.1, 1, 0.0) is None
    assert patients_needed(math.nan, 10, 0.1) is None
    assert [rounded_patients(n) for n in (7, 99, 101, 1234)] == [7, 99, 110, 1300]


def test_a_class_of_two_patients_does_not_open_an_auroc_to_one() -> None:
    interval = logit_interval(0.8, 0.05, 20, 60, edge=0.25)
    assert interval.high < 0.95
    assert logit_interval(1.0, 0.05, 20, 60, edge=0.01).high == 1
    assert logit_interval(0.0, 0.05, 20, 60, edge=0.01).low == 0
