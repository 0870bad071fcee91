"""What EWC and LwF add to a loss, against their equations computed by hand."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wardround.client.data.batch import Batch
from wardround.client.training.objectives.base import LocalStart, ParentKnowledge
from wardround.client.training.objectives.distillation import Distillation
from wardround.client.training.objectives.elastic_weights import ElasticWeights
from wardround.client.training.schedule import SchedulePosition
from wardround.common.errors import RunError
from wardround.common.models.sharing import layout_of
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.plans.strategy import plan_from
from wardround.common.study.sections.federation import FederationSection
from wardround.common.study.sections.training import TrainingSection

PLAN = plan_from(FederationSection())


def network(seed: int, outputs: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, outputs))


def knowledge(parent: nn.Module, **changes: Any) -> ParentKnowledge:
    plain = ParentKnowledge(parent, 3, True, 0.7, 2.0)
    return replace(plain, **changes)


def start_of(own: nn.Module, parent: ParentKnowledge | None) -> LocalStart:
    return LocalStart(
        network=own,
        parameters=read_parameters(own),
        auxiliary={},
        memory={},
        plan=PLAN,
        layout=layout_of(own, PLAN),
        training=TrainingSection(),
        position=SchedulePosition(0, 1, 1),
        loss=F.cross_entropy,
        parent=parent,
    )


def batch() -> Batch:
    torch.manual_seed(9)
    return Batch(torch.randn(6, 4), None, torch.tensor([0, 1, 2, 0, 1, 2]))


def test_elastic_weights_adds_the_gradient_of_the_quadratic_term() -> None:
    own, parent = network(0), network(1)
    fisher = {name: torch.rand_like(w) for name, w in own.named_parameters()}
    expected = copy.deepcopy(own)
    term = sum(
        (fisher[name] * (w - dict(parent.named_parameters())[name].detach()).square()).sum()
        for name, w in expected.named_parameters()
    )
    held, seen = batch(), batch()
    assert held.images is not None
    loss = F.cross_entropy(expected(held.images), held.targets) + 0.7 / 2 * term
    loss.backward()

    objective = ElasticWeights(start_of(own, knowledge(parent, fisher=fisher)))
    assert seen.images is not None
    objective.adjust(F.cross_entropy(own(seen.images), seen.targets), seen).backward()
    objective.correct()
    for ours, theirs in zip(own.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert not objective.memory()
    assert not objective.auxiliary()


@pytest.mark.parametrize("exclusive", [True, False])
def test_distillation_adds_the_divergence_from_the_parents_answers(exclusive: bool) -> None:
    own, parent = network(0, outputs=4), network(1, outputs=4)
    seen = batch()
    assert seen.images is not None
    with torch.no_grad():
        logits, before = own(seen.images)[:, :3] / 2, parent(seen.images)[:, :3] / 2
    if exclusive:
        p, q = before.softmax(1), logits.softmax(1)
        term = (p * (p.log() - q.log())).sum(1).mean()
    else:
        p, q = before.sigmoid(), logits.sigmoid()
        each: Tensor = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        term = each.mean()

    objective = Distillation(start_of(own, knowledge(parent, is_exclusive=exclusive)))
    loss = F.cross_entropy(own(seen.images), seen.targets)
    found = objective.adjust(loss, seen)
    torch.testing.assert_close(found, loss + 0.7 * 4 * term)
    assert found.requires_grad


def test_a_network_that_answers_as_the_parent_does_is_drawn_nowhere() -> None:
    own = network(0)
    objective = Distillation(start_of(own, knowledge(copy.deepcopy(own))))
    seen = batch()
    assert seen.images is not None
    loss = F.cross_entropy(own(seen.images), seen.targets)
    torch.testing.assert_close(objective.adjust(loss, seen), loss)


def test_a_round_without_answers_or_without_a_parent_says_so() -> None:
    own = network(0)
    objective = Distillation(start_of(own, knowledge(network(1))))
    with pytest.raises(RunError, match="several devices"):
        objective.adjust(torch.zeros(()), batch())
    for kind in (Distillation, ElasticWeights):
        with pytest.raises(RunError, match="names no parent"):
            kind(start_of(own, None))


def test_a_network_outlives_the_hook_of_a_round() -> None:
    own = network(0)
    objective = Distillation(start_of(own, knowledge(network(1))))
    assert own._forward_hooks
    del objective
    assert not own._forward_hooks
