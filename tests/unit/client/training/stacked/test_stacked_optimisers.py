"""The optimisers of a stack make each site's step as torch's own make it alone."""

from typing import Any

import pytest
import torch
from torch import nn

from wardround.client.training.optimisers import build_optimiser, set_learning_rate
from wardround.client.training.stacked.optimisers import STACKED, clip_each
from wardround.common.study.sections.training import TrainingSection

SITES, STEPS = 3, 6
KINDS: list[dict[str, Any]] = [
    {"optimiser": "sgd"},
    {"optimiser": "sgd", "momentum": 0.9, "weight_decay": 0.05},
    {"optimiser": "adam"},
    {"optimiser": "adam", "weight_decay": 0.05},
    {"optimiser": "adamw", "weight_decay": 0.05},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
@pytest.mark.parametrize("rates_differ", [False, True])
def test_a_stack_steps_as_each_site_alone_and_who_is_done_stands_still(
    kind: dict[str, Any], rates_differ: bool
) -> None:
    training = TrainingSection.model_validate({"learning_rate": 0.1, **kind})
    networks = [nn.Linear(4, 3) for _ in range(SITES)]
    names = ("weight", "bias")
    whole = [torch.stack([getattr(n, name).detach() for n in networks]) for name in names]
    alone = [build_optimiser(network, training) for network in networks]
    stacked = STACKED[kind["optimiser"]](training)
    for step in range(STEPS):
        active = SITES if step < 2 else SITES - 1  # the last site makes two steps
        rates = [0.1 / (step + 1 + rates_differ * place) for place in range(active)]
        gradients = [torch.randn_like(weight[:active]) for weight in whole]
        for place in range(active):
            for name, gradient in zip(names, gradients, strict=True):
                getattr(networks[place], name).grad = gradient[place].clone()
            set_learning_rate(alone[place], rates[place])
            alone[place].step()
        stacked.step([weight[:active] for weight in whole], gradients, rates)
    for place, network in enumerate(networks):
        for name, weight in zip(names, whole, strict=True):
            assert torch.allclose(getattr(network, name), weight[place], atol=1e-6)


def test_each_site_s_gradient_is_clipped_by_itself() -> None:
    scales = torch.tensor([0.01, 1.0, 100.0])
    gradients = [torch.randn(3, 4, 5) * scales[:, None, None], torch.randn(3, 5) * scales[:, None]]
    expected = []
    for place in range(3):
        weights = [nn.Parameter(torch.zeros(part.shape[1:])) for part in gradients]
        for weight, part in zip(weights, gradients, strict=True):
            weight.grad = part[place].clone()
        nn.utils.clip_grad_norm_(weights, 1.0)
        expected.append([weight.grad for weight in weights])
    clip_each(gradients, 1.0)
    for place, clipped in enumerate(expected):
        for one, gradient in zip(clipped, gradients, strict=True):
            assert one is not None
            assert torch.allclose(one, gradient[place], atol=1e-6)
