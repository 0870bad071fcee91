"""Objectives on features: small ones, and such as are held to the statistics that all share."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.support.hospitals.image_ward import ward_study

from wardround.client.data.batch import Batch
from wardround.client.session.model_context import ModelContext
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.objectives.registry import build_objective
from wardround.client.training.schedule import SchedulePosition
from wardround.common.errors import StudyError
from wardround.common.models.sharing import head_layer
from wardround.common.parameters.schema import read_parameters


def start_of(context: ModelContext) -> LocalStart:
    """A first local step, with a loss that looks at nothing but the logits."""
    return LocalStart(
        network=context.network,
        parameters=read_parameters(context.network),
        auxiliary={},
        memory={},
        plan=context.plan,
        layout=context.layout,
        training=context.study.training,
        position=SchedulePosition(0.0, 1.0, 1),
        loss=lambda logits, targets: logits.mean(),
    )


def test_the_term_is_the_mean_square_of_the_features_and_the_network_is_left_as_it_was() -> None:
    asked = {"objective": "small-features", "options": {"feature_weight": 0.5}}
    study = ward_study(federation=asked)
    context = ModelContext.build(study, "cpu")
    network = context.network
    objective = build_objective(start_of(context))
    assert objective is not None
    seen: list[torch.Tensor] = []
    look = head_layer(network).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = Batch(torch.randn(2, 1, 16, 16, 16), None, torch.zeros(2, 16, 16, 16))
    network(*batch.inputs)
    look.remove()
    adjusted = objective.adjust(torch.tensor(1.0), batch)
    torch.testing.assert_close(adjusted, 1 + 0.5 * seen[0].square().mean())
    adjusted.backward()
    assert any(weight.grad is not None for weight in network.parameters())
    assert objective.memory() == objective.auxiliary() == {}
    assert len(head_layer(network)._forward_pre_hooks) == 1
    del objective
    assert not head_layer(network)._forward_pre_hooks


def aligned(**model: Any) -> tuple[ModelContext, LocalStart]:
    asked = {"objective": "aligned-features", "options": {"feature_weight": 0.5}}
    study = ward_study(federation=asked, model={"normalisation": "batch", **model})
    context = ModelContext.build(study, "cpu")
    return context, start_of(context)


def normalisations(network: torch.nn.Module) -> Iterator[torch.nn.BatchNorm3d]:
    return (layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm3d))


def test_features_are_held_to_the_received_statistics_once_somebody_was_seen() -> None:
    _, fresh = aligned()
    batch = Batch(torch.randn(2, 1, 16, 16, 16), None, torch.zeros(2, 16, 16, 16))
    first = build_objective(fresh)
    assert first is not None
    fresh.network(*batch.inputs)
    assert first.adjust(torch.tensor(1.0), batch) == 1, "the model has seen nobody"

    context, _ = aligned()
    for layer in normalisations(context.network):
        layer.running_mean = torch.full_like(layer.bias, 0.5).detach()
        layer.running_var = torch.full_like(layer.bias, 4.0).detach()
    start = LocalStart(
        **{
            **{name: getattr(fresh, name) for name in LocalStart.__dataclass_fields__},
            "network": context.network,
            "parameters": read_parameters(context.network),
        }
    )
    objective = build_objective(start)
    assert objective is not None
    layers, seen = list(normalisations(context.network)), list[torch.Tensor]()
    looks = [
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        for layer in layers
    ]
    context.network(*batch.inputs)
    for look in looks:
        look.remove()
    expected = []
    for features in seen:
        mean = features.mean((0, 2, 3, 4))
        deviation = (features.var((0, 2, 3, 4), correction=0) + 1e-5).sqrt()
        variance = 4 + 1e-5
        expected.append(
            ((mean - 0.5) ** 2 / variance + (deviation / variance**0.5 - 1) ** 2).mean()
        )
    adjusted = objective.adjust(torch.tensor(1.0), batch)
    torch.testing.assert_close(adjusted, 1 + 0.5 * torch.stack(expected).mean())
    adjusted.backward()
    assert any(weight.grad is not None for weight in context.network.parameters())
    assert objective.memory() == objective.auxiliary() == {}
    del objective
    assert not any(layer._forward_pre_hooks for layer in layers), "the network is left as it was"


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {"normalisation": "instance"}}, "keeps none: set it to 'batch'"),
        (
            {
                "model": {"normalisation": "batch"},
                "federation": {"share": "all-but-normalisation"},
            },
            "leaves them at each site",
        ),
    ],
)
def test_without_statistics_that_all_share_nothing_is_aligned(
    sections: dict[str, dict[str, str]], said: str
) -> None:
    federation = {"objective": "aligned-features", **sections.get("federation", {})}
    with pytest.raises(StudyError, match=said):
        ward_study(federation=federation, model=sections["model"])
