"""One clip for a patient's images, clinical values, and what stands for those it lacks."""

from typing import Any

import pytest
import torch
from tests.unit.client.privacy.gradients.test_clipped_sum import (
    COUNTS,
    cross_entropy,
    distance,
    private_network,
    typical_norm,
)

from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.clipped_sum import clipped_gradient_sum
from wardround.client.privacy.gradients.loop import loop_clipped_sum
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study


def study_of(task: str, fusion: str) -> Study:
    model: dict[str, Any] = {"network": "small-cnn", "features": [4]}
    if task == "segmentation":
        model = {"network": "unet", "features": [4, 6], "normalisation": "instance"}
    return parse_study(
        {
            "study": {"name": "private", "task": task},
            "data": {
                "classes": ["a", "b", "c"],
                "channels": ["t1", "t2"],
                "size": [8, 8] if task == "classification" else [16, 16],
                "covariates": [{"name": "age"}],
                "optional": ["t2", "age"],
            },
            "model": {**model, "fusion": fusion},
        }
    )


def patients_of(study: Study) -> PatientBatch:
    """Three patients: one lacks nothing, one the channel, one the value and once the channel."""
    torch.manual_seed(5)
    count, size = sum(COUNTS), study.data.size or ()
    images = torch.randn(count, 2, *size).double()
    values = torch.randn(count, 3).double()
    values[:, 1:] = 0
    values[2, 2] = values[4, 2] = 1
    values[3:, 1], values[3:, 0] = 1, 0
    masks = size if study.task.dense else ()
    return PatientBatch(Batch(images, values, torch.randint(0, 3, (count, *masks))), COUNTS)


@pytest.mark.parametrize("fusion", ["early", "intermediate", "late"])
@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_the_clipped_sum_is_that_of_the_loop(task: str, fusion: str) -> None:
    study = study_of(task, fusion)
    network, patients = private_network(study), patients_of(study)
    clip = typical_norm(network, patients)
    expected = loop_clipped_sum(network, patients, cross_entropy, clip)
    for method in ("ghost", "vmap"):
        found = clipped_gradient_sum(network, patients, cross_entropy, clip, method, 16)
        assert distance(found, expected) < 1e-10
    # Everything that is fused is in the sum, so that the one clip bounds all of it.
    assert list(expected) == [name for name, _ in network.named_parameters()]
    tokens = [name for name in expected if "tokens" in name or "covariate" in name]
    assert tokens
    assert all(expected[name].any() for name in tokens)
