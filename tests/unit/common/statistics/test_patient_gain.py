"""Metrics with every patient's part in them, and the error of a gain."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from wardround.common.statistics.joining.patient_gain import (
    Estimate,
    auroc_of,
    f1_of,
    gain_of,
    mean_of,
    mean_of_estimates,
    recall_of,
)

Floats = NDArray[np.float64]


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def jackknife(estimate: object, cases: int, patients: NDArray[np.int64]) -> Floats:
    """Return how much the value changes without each patient, times how many are left."""
    count = int(patients.max()) + 1
    whole = estimate(np.ones(cases, bool))  # type: ignore[operator] # a function of kept rows
    return np.array([(count - 1) * (whole - estimate(patients != p)) for p in range(count)])  # type: ignore[operator] # likewise


def test_the_values_are_scikit_learns(generator: np.random.Generator) -> None:
    scores, held = generator.random(200), generator.random(200) < 0.4
    patients, called = np.arange(200), scores > 0.5
    assert auroc_of(scores, held, patients).value == pytest.approx(roc_auc_score(held, scores))
    assert f1_of(called, held, patients).value == pytest.approx(f1_score(held, called))
    right = (called == held).astype(float)
    assert recall_of(right, held, patients).value == pytest.approx(recall_score(held, called))


def test_an_influence_is_what_leaving_a_patient_out_changes(generator: np.random.Generator) -> None:
    patients = np.repeat(np.arange(150), generator.integers(1, 4, 150))
    size = len(patients)
    scores, held = generator.random(size), generator.random(size) < 0.5
    for found, value in (
        (auroc_of(scores, held, patients), lambda k: roc_auc_score(held[k], scores[k])),
        (f1_of(scores > 0.4, held, patients), lambda k: f1_score(held[k], scores[k] > 0.4)),
        (mean_of(scores, patients), lambda k: scores[k].mean()),
    ):
        assert found.influence.sum() == pytest.approx(0, abs=1e-12)
        left_out = jackknife(value, size, patients) / 150
        assert np.corrcoef(left_out, found.influence)[0, 1] > 0.999
        assert found.influence.std() == pytest.approx(left_out.std(), rel=0.03)


def test_ties_of_scores_count_one_half() -> None:
    found = auroc_of(np.full(4, 0.5), np.array([True, True, False, False]), np.arange(4))
    assert found.value == 0.5


def test_what_is_not_defined_is_nan() -> None:
    patients, nobody = np.arange(3), np.zeros(3, bool)
    assert np.isnan(auroc_of(np.ones(3), nobody, patients).value)
    assert np.isnan(f1_of(~nobody, nobody, patients).value)
    assert np.isnan(mean_of(np.full(3, np.nan), patients).value)
    assert np.isnan(mean_of_estimates([Estimate(np.nan, np.zeros(3))]).value)


def test_a_mean_leaves_out_what_is_not_defined() -> None:
    patients = np.arange(2)
    parts = [mean_of(np.array([0.2, 0.4]), patients), Estimate(np.nan, np.zeros(2))]
    assert mean_of_estimates(parts).value == pytest.approx(0.3)


def test_images_of_one_patient_are_no_more_than_one_patient() -> None:
    values, other = np.array([1.0, 0.0, 1.0, 1.0, 0.0]), np.zeros(5)
    once = gain_of(mean_of(values, np.arange(5)), mean_of(other, np.arange(5)))
    patients = np.repeat(np.arange(5), 10)
    tenfold = gain_of(mean_of(np.repeat(values, 10), patients), mean_of(np.zeros(50), patients))
    assert tenfold.error == pytest.approx(once.error)
    assert tenfold.patients == 5


def test_a_rare_class_has_few_degrees_of_freedom(generator: np.random.Generator) -> None:
    held = np.arange(100) < 4
    one, other = generator.standard_normal(100) + held, generator.standard_normal(100) + held
    areas = [auroc_of(scores, held, np.arange(100)) for scores in (one, other)]
    assert gain_of(*areas, strata=held.astype(np.int64)).freedom < 15
    assert gain_of(*areas).freedom == 99


def test_lower_is_better_turns_the_sign() -> None:
    better, worse = (mean_of(np.full(5, value), np.arange(5)) for value in (1.0, 3.0))
    assert gain_of(better, worse, sign=-1).value == 2.0


def test_one_patient_has_no_error() -> None:
    one = mean_of(np.ones(3), np.zeros(3, np.int64))
    assert not gain_of(one, one).is_known
