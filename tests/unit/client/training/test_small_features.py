"""Small features: the loss, and the mean square of what enters the last layer."""

import torch
from tests.support.hospitals.image_ward import ward_study

from wardround.client.data.batch import Batch
from wardround.client.session.model_context import ModelContext
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.objectives.registry import build_objective
from wardround.client.training.schedule import SchedulePosition
from wardround.common.models.sharing import head_layer
from wardround.common.parameters.schema import read_parameters


def test_the_term_is_the_mean_square_of_the_features_and_the_network_is_left_as_it_was() -> None:
    asked = {"objective": "small-features", "options": {"feature_weight": 0.5}}
    study = ward_study(federation=asked)
    context = ModelContext.build(study, "cpu")
    network = context.network
    start = LocalStart(
        network=network,
        parameters=read_parameters(network),
        auxiliary={},
        memory={},
        plan=context.plan,
        layout=context.layout,
        training=study.training,
        position=SchedulePosition(0.0, 1.0, 1),
        loss=lambda logits, targets: logits.mean(),
    )
    objective = build_objective(start)
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
