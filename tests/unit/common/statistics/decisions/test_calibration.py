import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from wardround.common.errors import InputError
from wardround.common.statistics.decisions.calibration import (
    ReliabilityBins,
    bin_histograms,
    bin_scores,
    bin_top_labels,
    brier_scores,
    brier_scores_of_histograms,
    calibration_error,
    calibration_in_the_large,
)


def _drawn(seed: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores that say too much, and the truth."""
    generator = np.random.default_rng(seed)
    truth = generator.random(number) < 0.35
    return 1 / (1 + np.exp(-generator.normal(2 * truth - 1, 1.3))), truth


def _binned(scores: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    index = np.minimum((scores * 100).astype(int), 99)
    return [np.bincount(index[mask], minlength=100).astype(float) for mask in (truth, ~truth)]


SITES = [_drawn(1, 900), _drawn(2, 400), _drawn(3, 150)]
POOLED = np.concatenate([s for s, _ in SITES]), np.concatenate([t for _, t in SITES])


def test_brier_and_calibration_error_from_merged_histograms_are_those_of_pooled_predictions() -> (
    None
):
    scores, truth = POOLED
    positives, negatives = np.sum([_binned(*site) for site in SITES], axis=0)
    exact = brier_score_loss(truth, scores)
    assert abs(brier_scores_of_histograms(positives, negatives) - exact) < 1e-3
    assert brier_scores(scores[:, None], truth[:, None])[0] == pytest.approx(exact)
    raw = calibration_error(bin_scores(scores, truth))
    assert abs(calibration_error(bin_histograms(positives, negatives)) - raw) < 1e-3


def test_bins_are_those_of_scikit_learn() -> None:
    scores, truth = POOLED
    bins = bin_scores(scores, truth)
    observed, said = calibration_curve(truth, scores, n_bins=10)
    filled = bins.count > 0
    assert_allclose(bins.observed[filled], observed)
    assert_allclose(bins.mean_score[filled], said)
    by_hand = (np.abs(observed - said) * bins.count[filled]).sum() / len(scores)
    assert calibration_error(bins) == pytest.approx(by_hand)


def test_the_top_label_is_right_where_the_highest_score_is_of_the_true_class() -> None:
    scores = np.array([[0.7, 0.2, 0.1], [0.15, 0.35, 0.5], [0.1, 0.8, 0.1]])
    labels = np.eye(3, dtype=bool)[[0, 0, 1]]
    bins = bin_top_labels(scores, labels)
    assert bins.count.nonzero()[0].tolist() == [5, 7, 8]
    assert bins.right.sum() == 2
    assert calibration_error(bins) == pytest.approx((0.3 + 0.5 + 0.2) / 3)


def test_a_model_that_says_too_much_is_high_in_the_large() -> None:
    bins = bin_scores(np.full(10, 0.8), np.arange(10) < 5)
    assert calibration_in_the_large(bins) == pytest.approx(0.3)
    assert calibration_error(bins) == pytest.approx(0.3)


def test_calibrated_scores_have_an_error_that_falls_with_examinations() -> None:
    generator = np.random.default_rng(5)
    errors = []
    for number in (200, 20_000):
        scores = generator.random(number)
        errors.append(
            float(calibration_error(bin_scores(scores, generator.random(number) < scores)))
        )
    assert errors[1] < 0.015 < errors[0]


def test_no_examinations_have_no_error() -> None:
    nothing = bin_scores(np.zeros((0, 3)), np.zeros((0, 3), bool))
    assert np.isnan(calibration_error(nothing)).all()
    assert np.isnan(brier_scores(np.zeros((0, 3)), np.zeros((0, 3), bool))).all()


def test_scores_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(InputError, match=r"got -0\.5 to 2"):
        bin_scores(np.array([-0.5, 2.0]), np.array([True, False]))
    with pytest.raises(InputError, match="do not add up"):
        bin_scores(*POOLED).plus(bin_scores(*POOLED, bins=20))


Examinations = st.integers(0, 25).flatmap(
    lambda number: st.tuples(
        arrays(np.float64, (number, 3), elements=st.floats(0, 1)),
        arrays(np.bool_, (number, 3)),
    )
)


@settings(max_examples=60, deadline=None)
@given(Examinations, Examinations)
def test_the_bins_of_two_sites_are_those_of_their_examinations_together(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]
) -> None:
    scores, labels = (np.concatenate(pair) for pair in zip(one, other, strict=True))
    _same(bin_scores(*one).plus(bin_scores(*other)), bin_scores(scores, labels))
    if len(one[0]) and len(other[0]):
        _same(bin_top_labels(*one).plus(bin_top_labels(*other)), bin_top_labels(scores, labels))


def _same(one: ReliabilityBins, other: ReliabilityBins) -> None:
    assert_allclose(one.count, other.count)
    assert_allclose(one.right, other.right)
    assert_allclose(one.score_sum, other.score_sum, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(Examinations)
def test_the_middle_of_a_bin_is_off_by_half_a_bin_at_most(
    some: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, labels = some
    if not len(scores):
        return
    index = np.minimum((scores * 100).astype(int), 99)
    fine = [
        np.stack([np.bincount(index[mask[:, k], k], minlength=100) for k in range(3)]).astype(float)
        for mask in (labels, ~labels)
    ]
    coarse = bin_histograms(*fine)
    exact = bin_scores(scores, labels)
    assert_allclose(coarse.count, exact.count)
    assert_allclose(coarse.right, exact.right)
    assert (np.abs(calibration_error(coarse) - calibration_error(exact)) <= 0.005 + 1e-9).all()
