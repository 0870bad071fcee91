from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_softmax

from wardround.common.errors import InputError
from wardround.common.statistics.decisions.calibration import bin_top_labels, calibration_error
from wardround.common.statistics.decisions.recalibration import (
    Fit,
    fit_platt,
    fit_temperature,
    log_odds,
    logits_of_scores,
    platt_sums,
    pooled,
    temperature_sums,
    with_platt,
    with_temperature,
)

Site = tuple[np.ndarray, np.ndarray]


def drawn(seed: int, number: int, classes: int = 4, heat: float = 2.5) -> Site:
    """Logits whose true temperature is ``heat``, and ``(N, K)`` truth."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, (number, classes))
    chance = np.exp(log_softmax(logits, axis=1))
    labels = np.array([generator.choice(classes, p=row) for row in chance])
    return logits * heat, np.eye(classes, dtype=bool)[labels]


def asked_of(sites: Sequence[Site], multi_label: bool = False) -> Fit:
    cases = sum(labels.sum(axis=0) for _, labels in sites)
    return fit_temperature(
        lambda numbers: pooled(
            [temperature_sums(*site, float(numbers[0]), multi_label) for site in sites]
        ),
        cases,
    )


SITES = [drawn(1, 400), drawn(2, 90, heat=3.0), drawn(3, 150, heat=1.5)]
LOGITS, LABELS = (np.concatenate(parts) for parts in zip(*SITES, strict=True))


def test_the_temperature_of_the_sites_is_that_of_all_examinations_in_one_place() -> None:
    together = asked_of([(LOGITS, LABELS)])
    federated = asked_of(SITES)
    best = minimize_scalar(
        lambda t: -log_softmax(LOGITS / t, axis=1)[LABELS].sum(),
        bounds=(0.05, 20),
        method="bounded",
    )
    assert federated.is_usable
    assert federated.exchanges <= 10
    assert federated.values[0] == pytest.approx(together.values[0], abs=1e-9)
    assert federated.values[0] == pytest.approx(best.x, abs=1e-3)
    assert federated.loss_after < federated.loss_before


def test_platt_scaling_of_the_sites_is_that_of_all_examinations_in_one_place() -> None:
    margins, truth = (
        log_odds(with_temperature(LOGITS * 0 + _scores(LOGITS), 1.0)[:, 1]),
        LABELS[:, 1],
    )
    cases = np.array([(~truth).sum(), truth.sum()], dtype=float)
    parts = np.split(np.arange(len(truth)), [400, 490])

    def ask(numbers: np.ndarray, groups: Sequence[np.ndarray]) -> object:
        return pooled([platt_sums(margins[g], truth[g], numbers, cases) for g in groups])

    federated = fit_platt(lambda numbers: ask(numbers, parts), cases)
    together = fit_platt(lambda numbers: ask(numbers, [np.arange(len(truth))]), cases)
    target = np.where(truth, (cases[1] + 1) / (cases[1] + 2), 1 / (cases[0] + 2))

    def loss(numbers: np.ndarray) -> float:
        line = numbers[0] * margins + numbers[1]
        return float((np.logaddexp(0, line) - target * line).sum())

    best = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    assert federated.is_usable
    assert federated.exchanges <= 12
    assert_allclose(federated.values, together.values, atol=1e-8)
    assert_allclose(federated.values, best.x, atol=1e-3)
    scaled = with_platt(_scores(LOGITS)[:, 1], *federated.values)
    assert abs(scaled.mean() - truth.mean()) < 0.01


def test_labels_of_their_own_share_one_temperature() -> None:
    generator = np.random.default_rng(4)
    logits = generator.normal(0, 1.2, (500, 3))
    labels = generator.random((500, 3)) < expit(logits)
    sites = [(logits[:300] * 2, labels[:300]), (logits[300:] * 2, labels[300:])]
    fit = asked_of(sites, multi_label=True)

    def loss(t: float) -> float:
        scaled = logits * 2 / t
        return float((np.logaddexp(0, scaled) - labels * scaled).sum())

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded")
    assert fit.values[0] == pytest.approx(best.x, abs=1e-3)
    assert_allclose(with_temperature(expit(logits * 2), 2.0, multi_label=True), expit(logits))


def test_the_error_falls_on_examinations_of_the_same_prevalence() -> None:
    logits, labels = drawn(7, 3000)
    fit = asked_of([(logits[:1500], labels[:1500])])
    before = _scores(logits[1500:])
    after = with_temperature(before, fit.values[0])
    errors = [float(calibration_error(bin_top_labels(s, labels[1500:]))) for s in (before, after)]
    assert errors[1] < 0.03 < 0.1 < errors[0]


def test_logarithms_of_scores_give_the_temperature_of_the_logits() -> None:
    fit = asked_of([(logits_of_scores(_scores(LOGITS)), LABELS)])
    assert fit.values[0] == pytest.approx(asked_of(SITES).values[0], abs=1e-6)


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        (np.eye(3) * 4, np.eye(3, dtype=bool), "separate"),
        (-np.eye(3) * 4, np.eye(3, dtype=bool), "less than chance"),
        (np.eye(3), np.eye(3, dtype=bool)[[1, 1, 1]], "only one class"),
        (np.zeros((0, 3)), np.zeros((0, 3), dtype=bool), "no validation examinations"),
    ],
)
def test_what_cannot_be_fitted_is_said(logits: np.ndarray, labels: np.ndarray, said: str) -> None:
    fit = asked_of([(logits, labels)])
    assert not fit.is_usable
    assert said in fit.trouble


@pytest.mark.parametrize(
    ("cases", "lacking"),
    [((3, 0), "no positive v"), ((0, 3), "no negative v"), ((0, 0), "no positive or negative v")],
)
def test_platt_says_which_class_lacks_cases(cases: tuple[int, int], lacking: str) -> None:
    fit = fit_platt(lambda numbers: pytest.fail("asked"), np.array(cases, dtype=float))
    assert lacking in fit.trouble


def test_platt_stays_finite_where_the_scores_separate_wholly_and_says_where_they_mislead() -> None:
    margins = np.array([-3.0, -2.0, 2.0, 3.0])
    cases = np.array([2.0, 2.0])
    for truth, trouble in ((margins > 0, ""), (margins < 0, "less likely")):
        fit = fit_platt(lambda n, t=truth: platt_sums(margins, t, n, cases), cases)
        assert np.isfinite(fit.values).all()
        assert fit.trouble.endswith(trouble)
        assert bool(fit.trouble) == bool(trouble)


def test_equal_margins_are_fitted_by_the_intercept() -> None:
    truth = np.arange(10) < 3
    cases = np.array([7.0, 3.0])
    fit = fit_platt(lambda n: platt_sums(np.full(10, 0.5), truth, n, cases), cases)
    line = fit.values[0] * 0.5 + fit.values[1]
    target = np.where(truth, 4 / 5, 1 / 9)
    assert expit(line) == pytest.approx(target.mean(), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.floats(0.2, 5.0))
def test_sums_of_two_sites_are_those_of_their_examinations_together(
    seed: int, classes: int, inverse: float
) -> None:
    one, other = drawn(seed, 13, classes), drawn(seed + 1, 5, classes)
    parts = pooled([temperature_sums(*site, inverse) for site in (one, other)])
    logits, labels = (np.concatenate(pair) for pair in zip(one, other, strict=True))
    whole = temperature_sums(logits, labels, inverse)
    assert parts.terms == whole.terms
    assert parts.loss == pytest.approx(whole.loss)
    assert_allclose(parts.gradient, whole.gradient, atol=1e-9)
    assert_allclose(parts.hessian, whole.hessian, atol=1e-9)
    step = 1e-5
    up, down = (temperature_sums(logits, labels, inverse + d).loss for d in (step, -step))
    assert whole.gradient[0] == pytest.approx((up - down) / (2 * step), abs=1e-3)


def test_sums_of_two_fits_do_not_add() -> None:
    other = platt_sums(np.zeros(2), np.array([True, False]), np.zeros(2), np.ones(2))
    with pytest.raises(InputError, match="same fit"):
        temperature_sums(LOGITS, LABELS, 1.0).plus(other)


def _scores(logits: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(logits, axis=1))
