"""A3: the audit by planted patients is sound, has power, and finds planted bugs."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from wardround.client.privacy import distributed, step
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.common.privacy.secure_random import Randomness
from wardround.common.study.plans.distributed_noise import NoiseShares
from wardround.common.study.plans.patient_privacy import PrivacyPlan
from wardround.simulations.privacy_attacks.canary_audit import audit_plan
from wardround.simulations.privacy_attacks.lower_bound import (
    bound_epsilon,
    bound_from_scores,
    p_value,
)
from wardround.simulations.privacy_attacks.sum_audit import audit_sum

# Noise 3, every patient in a tenth of 50 steps: epsilon 0.97.
PLAN = PrivacyPlan(0.1, 50, 1.0, 3.0, 50, 1, 1e-5, 20)
STRICT = 0.001


# --- the statistics ------------------------------------------------------------------------------


def _normal_scores(mean: float, count: int) -> NDArray[np.float64]:
    return np.asarray(norm.ppf((np.arange(count) + 0.5) / count) + mean)


def _frontier(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return (right, guessed) of the thresholds on the convex frontier of the ROC curve."""
    cuts = np.append(np.unique(np.concatenate([inside, outside])), np.inf)
    missed, rejected = np.searchsorted(inside, cuts), np.searchsorted(outside, cuts)
    kept: list[tuple[int, int]] = []
    for x, y in zip(missed.tolist(), rejected.tolist(), strict=True):
        while len(kept) > 1:
            (x0, y0), (x1, y1) = kept[-2:]
            if (y1 - y0) * (x - x1) > (y - y1) * (x1 - x0):
                break
            kept.pop()
        kept.append((x, y))
    return [(len(inside) - x, len(inside) - x + len(outside) - y) for x, y in kept]


@pytest.mark.parametrize(
    ("shift", "published"), [(0, 0.0), (1, 1.13346), (2, 2.311945), (4, 4.395568)]
)
def test_the_p_value_reproduces_the_published_bounds(shift: int, published: float) -> None:
    """JAX-Privacy's own test: 10,000 scores a side, significance 0.05 over all thresholds."""
    count, delta = 10_000, 1e-6
    tests = _frontier(_normal_scores(shift, count), _normal_scores(0, count))

    def refuted(epsilon: float) -> bool:
        return any(
            # Without delta the p-value is smaller and quick: most thresholds end there.
            p_value(2 * count, guesses, right, epsilon, 0.0) < 0.05 / len(tests)
            and p_value(2 * count, guesses, right, epsilon, delta) < 0.05 / len(tests)
            for right, guesses in tests
            if guesses
        )

    if shift:
        assert refuted(published * (1 - 1e-5))
    assert not refuted(published * (1 + 1e-5))


def test_the_p_value_is_the_binomials_without_delta() -> None:
    # 3 right of 3 at epsilon ln 3: (3/4)^3; any number of right guesses from none on is certain.
    assert p_value(10, 3, 3, math.log(3), 0.0) == pytest.approx(27 / 64)
    assert p_value(10, 3, 0, math.log(3), 0.0) == 1.0
    # Theorem 5.2 by hand: r = v = 1, delta 0.01, m = 10: q + 2 m delta P(W = 0).
    assert p_value(10, 1, 1, math.log(3), 0.01) == pytest.approx(0.75 + 0.2 * 0.25)


def test_the_bound_is_where_the_p_value_is_the_significance() -> None:
    found = bound_epsilon(200, 100, 90, 1e-5, 0.05)
    assert p_value(200, 100, 90, found, 1e-5) == pytest.approx(0.05, abs=1e-5)
    assert bound_epsilon(200, 100, 50, 1e-5, 0.05) == 0.0
    assert bound_epsilon(200, 0, 0, 1e-5, 0.05) == 0.0


def test_guessing_by_chance_proves_nothing_as_often_as_is_said() -> None:
    generator = np.random.default_rng(0)
    proven = 0
    for _ in range(200):
        coins = generator.integers(0, 2, 300).astype(bool)
        proven += bound_from_scores(generator.normal(size=300), coins, 0.0, 0.05).epsilon > 0
    assert proven <= 20  # 10 expected at most; more than 20 has a probability below 1e-3


def test_randomised_response_is_never_over_charged() -> None:
    """Coins told with the probability of epsilon 1, the tightest mechanism there is."""
    generator, epsilon = np.random.default_rng(1), 1.0
    bounds = []
    for _ in range(40):
        coins = generator.integers(0, 2, 1000).astype(bool)
        truthful = generator.random(1000) < 1 / (1 + math.exp(-epsilon))
        bounds.append(bound_from_scores((coins == truthful) * 1.0, coins, 0.0, STRICT).epsilon)
    assert max(bounds) <= epsilon
    assert float(np.mean(bounds)) > 0.5


# --- through the site's own private step ---------------------------------------------------------


def test_without_noise_the_canaries_are_seen() -> None:
    silent = replace(PLAN, noise_multiplier=0.0, steps=100)
    audit = audit_plan(silent, seed=0)
    assert audit.bound.epsilon >= 2
    assert audit.claimed == math.inf
    assert audit.holds


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_never_exceeds_the_claim(seed: int) -> None:
    for plan in (PLAN, PrivacyPlan(1.0, 50, 1.0, 1.0, 1, 1, 1e-5, 8)):
        audit = audit_plan(plan, seed, significance=STRICT)
        assert audit.bound.epsilon <= audit.claimed
        assert audit.holds


def test_the_bound_finds_a_part_of_what_is_lost() -> None:
    audit = audit_plan(PrivacyPlan(1.0, 50, 1.0, 1.0, 1, 1, 1e-5, 8), seed=0)
    assert 0.5 < audit.bound.epsilon < audit.claimed < 4.5


def test_twenty_slices_of_a_patient_lose_no_more_than_one() -> None:
    assert audit_plan(PLAN, seed=0, canaries=400, examples=20, significance=STRICT).holds


Clipped = Callable[..., dict[str, Tensor]]


def _plant(monkeypatch: pytest.MonkeyPatch, bug: Callable[[Clipped], Clipped]) -> None:
    monkeypatch.setattr(step, "clipped_gradient_sum", bug(step.clipped_gradient_sum))


def test_noise_for_records_instead_of_patients_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    def a_record_a_patient(true: Clipped) -> Clipped:
        def clip(network: object, patients: PatientBatch, *rest: object) -> dict[str, Tensor]:
            records = PatientBatch(patients.examples, (1,) * len(patients.examples))
            return true(network, records, *rest)

        return clip

    _plant(monkeypatch, a_record_a_patient)
    for seed in range(2):
        audit = audit_plan(PLAN, seed, canaries=400, examples=20, significance=STRICT)
        assert audit.bound.epsilon > audit.claimed
        assert not audit.holds


def test_clipping_switched_off_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_clipping(true: Clipped) -> Clipped:
        def clip(
            network: object, patients: object, loss: object, clip_norm: float, *rest: object
        ) -> dict[str, Tensor]:
            return true(network, patients, loss, 1e6 * clip_norm, *rest)

        return clip

    _plant(monkeypatch, without_clipping)
    for seed in range(2):
        audit = audit_plan(PLAN, seed, significance=STRICT)
        assert audit.bound.epsilon > audit.claimed
        assert not audit.holds


def test_the_rounds_of_a_plan_are_audited_together() -> None:
    once = replace(PLAN, noise_multiplier=0.0, steps=5, rounds=1)
    bounds = [audit_plan(plan, 0).bound for plan in (once, replace(once, rounds=20))]
    assert bounds[0].epsilon < bounds[1].epsilon  # in 5 steps most canaries are never drawn


def test_coins_repeat_with_the_seed_and_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    silent = replace(PLAN, noise_multiplier=0.0, sampling_rate=1.0, steps=1)
    guesses = [audit_plan(silent, seed, canaries=100).bound for seed in (1, 1)]
    assert guesses[0] == guesses[1]
    assert all(one == other for one, other in itertools.pairwise(guesses))
    assert torch.equal(before, torch.random.get_rng_state())


# --- a masked sum, whose noise is of several sites -----------------------------------------------

SUM = NoiseShares("patient", 1.0, 50, 1.0, 10, 7, 3, 1.0, 1, 1e-5)


@pytest.mark.parametrize("seed", range(2))
def test_the_bound_on_a_sum_never_exceeds_its_claim(seed: int) -> None:
    audit = audit_sum(SUM, seed, canaries=400, significance=STRICT)
    assert audit.claimed == pytest.approx(4.377, abs=0.01)
    assert audit.holds


def test_a_sum_that_lacks_most_of_its_shares_is_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each site added a hundredth of its share."""
    whole = distributed.discrete_gaussian

    def small(count: int, bits: int, randomness: Randomness) -> NDArray[np.int64]:
        return whole(count, bits - 7, randomness)

    monkeypatch.setattr(distributed, "discrete_gaussian", small)
    loud = replace(SUM, noise_multiplier=6.0)  # a claim of 0.63
    assert not audit_sum(loud, 0, canaries=400, significance=STRICT).holds
