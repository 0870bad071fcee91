import numpy as np
import pandas as pd
import pytest
from dcurves import dca
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from sklearn.metrics import precision_recall_curve, roc_curve

from wardround.common.errors import InputError
from wardround.common.statistics.decisions.curves import count_histograms, count_scores
from wardround.common.statistics.decisions.decision_curves import decision_curve, gains_of_cases

THRESHOLDS = np.arange(1, 100) / 100


def drawn(seed: int, number: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a model that is right more often than not, and the truth."""
    generator = np.random.default_rng(seed)
    truth = generator.random(number) < 0.35
    logits = generator.normal(1.2 * truth - 0.8, 1.3)
    return 1 / (1 + np.exp(-logits)), truth


def binned(scores: np.ndarray, truth: np.ndarray, bins: int = 100) -> list[np.ndarray]:
    index = np.minimum((scores * bins).astype(int), bins - 1)
    return [np.bincount(index[mask], minlength=bins).astype(float) for mask in (truth, ~truth)]


def merged(sites: list[tuple[np.ndarray, np.ndarray]], bins: int = 100) -> list[np.ndarray]:
    return [np.sum(parts, axis=0) for parts in zip(*(binned(*s, bins) for s in sites), strict=True)]


SITES = [drawn(1, 4000), drawn(2, 1500), drawn(3, 150)]
POOLED = np.concatenate([s for s, _ in SITES]), np.concatenate([t for _, t in SITES])


def test_curves_from_raw_scores_are_those_of_scikit_learn() -> None:
    scores = np.round(POOLED[0], 2)  # with ties
    counts = count_scores(scores, POOLED[1])
    alarms, hits, thresholds = roc_curve(POOLED[1], scores, drop_intermediate=False)
    assert_allclose(counts.thresholds, thresholds)
    assert_allclose(counts.sensitivity, hits)
    assert_allclose(counts.false_alarms, alarms)
    precision, recall, _ = precision_recall_curve(POOLED[1], scores)
    assert_allclose(counts.precision, precision[::-1])
    assert_allclose(counts.sensitivity, recall[::-1])


@pytest.mark.parametrize("raw", [True, False])
def test_net_benefit_is_that_of_dcurves_on_pooled_predictions(raw: bool) -> None:
    scores, truth = POOLED
    # dcurves passes what is above a threshold; no score lies on one, so that this is the same.
    frame = pd.DataFrame({"outcome": truth.astype(int), "model": scores})
    theirs = dca(data=frame, outcome="outcome", modelnames=["model"], thresholds=list(THRESHOLDS))
    counts = count_scores(scores, truth) if raw else count_histograms(*merged(SITES))
    ours = decision_curve(counts, THRESHOLDS)
    for name, values in (("model", ours.model), ("all", ours.treat_all)):
        expected = theirs[theirs["model"] == name].sort_values("threshold")["net_benefit"]
        assert_allclose(values, expected.to_numpy(), atol=1e-3)


def test_gains_of_cases_have_the_net_benefit_as_their_mean() -> None:
    curve = decision_curve(count_scores(*POOLED), np.array([0.2]))
    assert gains_of_cases(*POOLED, 0.2).mean() == pytest.approx(curve.model[0])


def test_acting_at_a_threshold_that_all_pass_is_to_treat_all() -> None:
    curve = decision_curve(count_scores(np.full(10, 0.9), np.arange(10) < 4), np.array([0.5]))
    assert curve.model[0] == curve.treat_all[0] == pytest.approx(-0.2)
    assert curve.gain[0] == pytest.approx(-0.2)


def test_one_class_alone_has_no_curve() -> None:
    counts = count_scores(np.array([0.1, 0.9]), np.array([True, True]))
    assert np.isnan(counts.false_alarms).all()
    nothing = count_scores(np.zeros(0), np.zeros(0, bool))
    assert np.isnan(nothing.sensitivity).all()
    assert np.isnan(decision_curve(nothing, THRESHOLDS).model).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=40))
def test_what_passes_a_threshold_is_what_is_not_below_it(cases: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in cases]) / 20
    truth = np.array([label for _, label in cases])
    asked = np.arange(-1, 43) / 40
    hits, alarms = count_scores(scores, truth).at(asked)
    assert hits.tolist() == [(scores[truth] >= threshold).sum() for threshold in asked]
    assert alarms.tolist() == [(scores[~truth] >= threshold).sum() for threshold in asked]


def test_histograms_at_their_edges_pass_what_the_scores_pass() -> None:
    exact, coarse = count_scores(*POOLED), count_histograms(*merged(SITES))
    edges = np.arange(0, 101) / 100
    assert_allclose(coarse.at(edges)[0], exact.at(edges)[0])
    assert_allclose(coarse.at(edges)[1], exact.at(edges)[1])


def test_what_is_no_threshold_and_what_does_not_fit_is_refused() -> None:
    counts = count_scores(*POOLED)
    with pytest.raises(InputError, match=r"must be in \(0, 1\), got 0 to 1"):
        decision_curve(counts, np.array([0.0, 1.0]))
    with pytest.raises(InputError, match="one length"):
        count_scores(np.zeros(3), np.zeros(2, bool))
    with pytest.raises(InputError, match="same bins"):
        count_histograms(np.zeros(10), np.zeros(20))
