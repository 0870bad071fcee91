"""A4: the likelihood-ratio attack finds members of an open model, and few of a private one."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from wardround.client.data.batch import Batch
from wardround.common.models.networks.registry import build_network
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.patient_privacy import PrivacyPlan
from wardround.common.study.study import Study
from wardround.simulations.privacy_attacks.membership import (
    Membership,
    Rate,
    attack_membership,
    confidences,
    judge_scores,
    largest_share,
    offline_scores,
    rate,
)
from wardround.simulations.privacy_attacks.memory_cohort import MemoryCohort, train_private_round

POOL, SHADOWS = 600, 8
# Epsilon 0.98 at delta 1e-5.
PLAN = PrivacyPlan(0.1, 30, 1.0, 3.0, 50, 1, 1e-5, 1)


def _study() -> Study:
    return parse_study(
        {
            "study": {"name": "pool", "task": "classification"},
            "data": {"classes": ["well", "ill"], "size": [16, 16], "intensity": "none"},
            "model": {"network": "mlp", "features": [64]},
            "training": {"optimiser": "sgd", "learning_rate": 0.5},
        }
    )


@dataclass(frozen=True, slots=True)
class Pool:
    """Patients whose class cannot be learnt: a model can only remember it."""

    images: Tensor
    targets: Tensor
    members: Tensor

    def logits_of(self, network: torch.nn.Module) -> Tensor:
        with torch.inference_mode():
            return network(self.images)

    def train_openly(self, chosen: Tensor) -> Tensor:
        network = build_network(_study(), seed=0)
        optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(60):
            optimiser.zero_grad()
            F.cross_entropy(network(self.images[chosen]), self.targets[chosen]).backward()
            optimiser.step()
        return self.logits_of(network)

    def train_privately(self, chosen: Tensor) -> Tensor:
        network = build_network(_study(), seed=0)
        batch = Batch(self.images[chosen], None, self.targets[chosen])
        cohort = MemoryCohort(batch, torch.arange(len(chosen)))
        train_private_round(network, cohort, _study(), PLAN)
        return self.logits_of(network)

    def attack(self, train: Callable[[Tensor], Tensor]) -> Membership:
        target = train(self.members.nonzero().flatten())
        generator = torch.Generator().manual_seed(1)
        return attack_membership(train, target, self.targets, self.members, SHADOWS, generator)


@pytest.fixture(scope="module")
def pool() -> Pool:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(POOL, 1, 16, 16, generator=generator)
    targets = torch.randint(0, 2, (POOL,), generator=generator)
    members = torch.zeros(POOL, dtype=torch.bool)
    members[torch.randperm(POOL, generator=generator)[: POOL // 2]] = True
    return Pool(images, targets, members)


def test_members_of_an_open_model_are_found(pool: Pool) -> None:
    found = pool.attack(pool.train_openly)
    assert found.found.low > 0.1
    assert found.exceeds(PLAN.epsilon, PLAN.delta)


def test_members_of_a_private_model_are_not_found_beyond_the_promise(pool: Pool) -> None:
    found = pool.attack(pool.train_privately)
    assert PLAN.epsilon < 1
    assert found.found.value < 0.1  # by chance alone once in a million
    assert not found.exceeds(PLAN.epsilon, PLAN.delta)


def test_confidence_is_the_log_odds_of_the_true_class() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 50.0, 0.0]])
    found = confidences(logits, torch.tensor([0, 1]))
    p = logits.double().softmax(1)[0, 0]
    assert float(found[0]) == pytest.approx(float(torch.log(p / (1 - p))))
    assert found.isfinite().all()


def test_scores_compare_with_models_that_left_the_patient_out() -> None:
    shadows = torch.tensor([[0.0, 9.0], [2.0, 9.0], [9.0, 1.0], [9.0, 3.0]], dtype=torch.float64)
    trained_on = shadows == 9.0
    # Means 1 and 2 of those that left them out; all four are 1 away from their mean.
    scores = offline_scores(torch.tensor([4.0, 2.0], dtype=torch.float64), shadows, trained_on)
    assert scores.tolist() == [3.0, 0.0]
    with pytest.raises(ValueError, match="left out"):
        offline_scores(torch.zeros(2), shadows, torch.ones(4, 2, dtype=torch.bool))


def test_at_most_one_in_a_hundred_others_is_a_false_alarm() -> None:
    scores = torch.arange(400.0)
    members = torch.arange(400) % 2 == 1
    found = judge_scores(scores, members)
    assert found.false_alarms.value == 2 / 200
    assert found.found.value == 3 / 200  # 395, 397 and 399 lie above 394
    assert (found.members, found.others) == (200, 200)
    tied = judge_scores(torch.zeros(400), members)
    assert (tied.found.value, tied.false_alarms.value) == (0.0, 0.0)


def test_the_interval_is_clopper_and_pearsons() -> None:
    for found, total in ((0, 50), (3, 50), (50, 50)):
        golden = stats.binomtest(found, total).proportion_ci(0.95, "exact")
        assert (rate(found, total).low, rate(found, total).high) == pytest.approx(tuple(golden))


def test_no_attack_may_find_more_than_differential_privacy_allows() -> None:
    assert largest_share(0.0, 0.0) == pytest.approx(0.01)
    assert largest_share(1.0, 1e-5) == pytest.approx(0.0271828 + 1e-5, abs=1e-6)
    assert largest_share(8.0, 0.0) == 1.0
    assert largest_share(1e6, 0.0) == 1.0
    assert largest_share(3.0, 0.1, 0.0) == 0.1
    members = Membership(Rate(0.5, 0.4, 0.6), Rate(0.01, 0.0, 0.03), 100, 100)
    assert members.exceeds(1.0, 1e-5)
    assert not members.exceeds(3.0, 1e-5)
