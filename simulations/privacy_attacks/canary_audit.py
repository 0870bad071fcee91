"""A lower bound on epsilon from one training run with planted patients (Steinke et al. 2023).

m canary patients are in the training data or not, each by a fair coin. The site's own private step
trains on them, and who sees the model guesses the coins. Each canary has a pixel of its own and a
gradient far above the clipping norm, so that its clipped gradient has the largest norm allowed and
is orthogonal to the others: the strongest canary there is against a Gaussian mechanism (Nasr et al.
2023, "Dirac canaries"). The bound is a few times below the true epsilon: it finds gross faults of
an implementation, and proves no promise.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from wardround.client.data.batch import Batch
from wardround.common.models.networks.registry import build_network
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.patient_privacy import PrivacyPlan
from wardround.common.study.study import Study
from wardround.simulations.privacy_attacks.lower_bound import LowerBound, bound_from_scores
from wardround.simulations.privacy_attacks.memory_cohort import MemoryCohort, train_private_round

SIGNIFICANCE = 0.05  # of one audit; a suite of them divides it
WIDTH = 20  # of the picture that holds a pixel a canary
_BRIGHTNESS = 20.0  # a gradient of norm 14 in the first steps, for a usual clipping norm of 1
_SLOWNESS = 1e-4  # what a clipped patient moves the weights by, in units of the clipping norm


@dataclass(frozen=True, slots=True)
class Audit:
    """What one run with canaries showed.

    Attributes:
        claimed: Epsilon of the plan by accounting; infinity without noise.
        bound: What was lost at least.
        significance: How likely the bound is too large, at most.
    """

    claimed: float
    delta: float
    bound: LowerBound
    canaries: int
    significance: float

    @property
    def holds(self) -> bool:
        """Whether the claim stands: false means that the privacy is not what it is said to be."""
        return self.bound.epsilon <= self.claimed


def audit_plan(
    plan: PrivacyPlan,
    seed: int,
    canaries: int = 1000,
    examples: int = 1,
    significance: float = SIGNIFICANCE,
) -> Audit:
    """Train on planted patients under a plan and return what their coins gave away.

    Args:
        plan: All its rounds are trained, one site, nothing else in the data.
        seed: Of the coins alone; the noise is the operating system's.
        canaries: Rounded up to whole rows of a picture.
        examples: Examinations of each canary patient, all alike: more must not help the attacker.
        significance: In (0, 1).
    """
    study = canary_study(-(-canaries // WIDTH), plan)
    count = WIDTH * -(-canaries // WIDTH)
    included = np.random.default_rng(seed).integers(0, 2, count).astype(bool)
    scores = _train_and_score(study, included, examples, plan)
    bound = bound_from_scores(scores, included, plan.delta, significance)
    claimed = plan.epsilon
    return Audit(claimed, plan.delta, bound, count, significance)


def canary_study(height: int, plan: PrivacyPlan) -> Study:
    """Return a study of pictures with a pixel a canary, and a first layer that they pull."""
    return parse_study(
        {
            "study": {"name": "canaries", "task": "classification"},
            "data": {"classes": ["out", "in"], "size": [height, WIDTH], "intensity": "none"},
            "model": {"network": "mlp", "features": []},
            "training": {
                "optimiser": "sgd",
                "learning_rate": _SLOWNESS * plan.expected_patients / plan.clip_norm,
            },
        }
    )


def _train_and_score(
    study: Study, included: NDArray[np.bool_], examples: int, plan: PrivacyPlan
) -> NDArray[np.float64]:
    """Return how far the model moved the way that each canary pulls it, ``(m,)``."""
    network = build_network(study, seed=0)
    for part in network.parameters():
        nn.init.zeros_(part)  # every canary starts at probability one half, and pulls equally
    cohort = canaries_of(included, study, examples)
    train_private_round(network, cohort, study, replace(plan, steps=plan.steps * plan.rounds))
    moved = next(network.parameters()).detach().double().numpy()
    return np.asarray(moved[1] - moved[0], dtype=np.float64)


def canaries_of(included: NDArray[np.bool_], study: Study, examples: int) -> MemoryCohort:
    """Return the canaries whose coin says so, as patients of so many examinations."""
    pixels = torch.from_numpy(np.flatnonzero(included)).repeat_interleave(examples)
    images = torch.zeros(len(pixels), len(included))
    images[torch.arange(len(pixels)), pixels] = _BRIGHTNESS
    size = study.data.size or ()
    batch = Batch(images.reshape(-1, 1, *size), None, torch.ones(len(pixels), dtype=torch.int64))
    patients = torch.arange(int(included.sum())).repeat_interleave(examples)
    return MemoryCohort(batch, patients)
