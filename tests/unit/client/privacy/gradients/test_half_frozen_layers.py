"""A layer of which a study freezes the weight and not the bias still trains privately."""

import pytest
from tests.unit.client.privacy.gradients.test_clipped_sum import (
    cross_entropy,
    distance,
    private_network,
    typical_norm,
)
from tests.unit.client.privacy.gradients.test_fused_networks import patients_of, study_of

from wardround.client.privacy.gradients.choice import exact_method
from wardround.client.privacy.gradients.clipped_sum import clipped_gradient_sum
from wardround.client.privacy.gradients.loop import loop_clipped_sum
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study


def private(frozen: tuple[str, ...]) -> Study:
    chosen = {
        "model.normalisation": "group",
        "model.frozen": frozen,
        "privacy.mode": "patient",
        "privacy.epsilon": 8.0,
        "privacy.expected_patients": 4,
        "training.local_steps": 1,
        "evaluation.validation_fraction": 0.0,
        "data.optional": ("t2", "age"),
    }
    return with_changes(study_of("segmentation", "early"), chosen)


@pytest.mark.parametrize("frozen", ["*.bias", "*conv.weight"])
def test_the_clipped_sum_is_of_what_is_learnt_alone(frozen: str) -> None:
    study = private((frozen,))
    network, patients = private_network(study), patients_of(study)
    method = exact_method(study, network)
    assert method == "loop", "ghost clipping takes a layer as a whole"
    clip = typical_norm(network, patients)
    expected = loop_clipped_sum(network, patients, cross_entropy, clip)
    found = clipped_gradient_sum(network, patients, cross_entropy, clip, method, 16)
    learnt = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert set(found) == set(expected) == learnt
    assert distance(found, expected) < 1e-10


def test_whole_layers_keep_the_quick_way() -> None:
    study = private(("image_network.model.0.*",))
    assert exact_method(study, private_network(study)) == "ghost"
