"""The audit by planted patients on a masked sum: what all of it gives away, and not one update.

The canaries of :mod:`.canary_audit` are patients of one site. The sum is of the sites that the
masks guarantee, less those that collude: the server knows what the others added. Each site makes
its step and adds its share by the code of a real round.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wardround.client.privacy.distributed import ShareAdder
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.schema import read_parameters
from wardround.common.privacy.secure_aggregation.fixed_point import MOST_VALUE_BITS, Grid
from wardround.common.study.plans.distributed_noise import NoiseShares
from wardround.common.study.plans.patient_privacy import PrivacyPlan
from wardround.common.study.study import Study
from wardround.simulations.privacy_attacks.canary_audit import (
    SIGNIFICANCE,
    WIDTH,
    Audit,
    canaries_of,
    canary_study,
)
from wardround.simulations.privacy_attacks.lower_bound import bound_from_scores
from wardround.simulations.privacy_attacks.memory_cohort import MemoryCohort, mean_gradient_of

_MOST_SITES = 100


def audit_sum(
    shares: NoiseShares, seed: int, canaries: int = 1000, significance: float = SIGNIFICANCE
) -> Audit:
    """Train on planted patients of one site, by sums with the noise of all, and guess their coins.

    Args:
        shares: Of patients; all rounds are made.
        seed: Of the coins alone; the noise is the operating system's.
        canaries: Rounded up to whole rows of a picture.
        significance: In (0, 1).
    """
    height = -(-canaries // WIDTH)
    plan = _plan_of(shares)
    study, count = canary_study(height, plan), WIDTH * height
    included = np.random.default_rng(seed).integers(0, 2, count).astype(bool)
    scores = _sum_and_score(study, included, plan, shares)
    bound = bound_from_scores(scores, included, shares.delta, significance)
    return Audit(shares.epsilon(shares.honest), shares.delta, bound, count, significance)


def _plan_of(shares: NoiseShares) -> PrivacyPlan:
    return PrivacyPlan(
        sampling_rate=shares.rate,
        expected_patients=shares.divisor,
        clip_norm=shares.clip_norm,
        noise_multiplier=shares.noise_multiplier,
        steps=1,
        rounds=shares.rounds,
        delta=shares.delta,
        examples_per_patient=1,
        distributed=True,
    )


def _sum_and_score(
    study: Study, included: NDArray[np.bool_], plan: PrivacyPlan, shares: NoiseShares
) -> NDArray[np.float64]:
    """Return how far the model moved the way that each canary pulls it, ``(m,)``."""
    network = build_network(study, seed=0)
    for part in network.parameters():
        nn.init.zeros_(part)
    planted = canaries_of(included, study, 1)
    empty = canaries_of(np.zeros_like(included), study, 1)
    grid = Grid(shares.largest, MOST_VALUE_BITS, _MOST_SITES)
    for _ in range(shares.rounds):
        sums = [
            _words(network, site, study, plan, grid)
            for site in (planted, *[empty] * (shares.honest - 1))
        ]
        with torch.no_grad():
            for name, weight in network.named_parameters():
                total = grid.decode(np.sum([part[name] for part in sums], axis=0))
                change = torch.from_numpy(total).reshape(weight.shape)
                weight.add_((study.training.learning_rate * change).to(weight.dtype))
    moved = next(network.parameters()).detach().double().numpy()
    return np.asarray(moved[1] - moved[0], dtype=np.float64)


def _words(
    network: nn.Module, cohort: MemoryCohort, study: Study, plan: PrivacyPlan, grid: Grid
) -> dict[str, NDArray[np.int64]]:
    """Return a site's whole numbers with its share of the noise, before they are masked."""
    gradient = mean_gradient_of(network, cohort, study, replace(plan, rounds=1))
    adder = ShareAdder(frozenset(read_parameters(network)), grid)
    return {name: adder(name, -part.flatten().numpy()) for name, part in gradient.items()}
