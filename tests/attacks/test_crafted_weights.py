"""No weights make a patient's contribution longer than the clip norm, on any path (P6b)."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.hostile.weights import DEAR, cross_entropy, longest_contribution, norm_of
from torch import nn

from wardround.client.data.batch import Batch
from wardround.client.policy.policy import Policy
from wardround.client.policy.rules import DeniedError, Facts, require_allowed
from wardround.client.privacy.gradients.clipped_sum import METHODS, clipped_gradient_sum
from wardround.client.privacy.gradients.loop import loop_clipped_sum
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.privacy.gradients.patient_gradients import squared_lengths
from wardround.common.models.networks.registry import build_network
from wardround.common.study.loading import parse_study
from wardround.common.study.private_networks import PRIVATE_NETWORKS
from wardround.common.study.study import Study

pytestmark = pytest.mark.attacks
CLIP = 1.0
MOST = CLIP * (1 + 1e-3)
SIDE = 16
WIDE = {"features": [16, 32, 64, 128], "normalisation": "none"}  # its last layers take ghost norms
NETWORKS = {
    "small-cnn": {"features": [8, 16, 32], "normalisation": "none"},
    "small-cnn with norms": {"features": [8, 16, 32], "normalisation": "group"},
    "unet": {"features": [4, 6, 8]},
    "dynunet": {"features": [4, 6, 8]},
}


def study_of(name: str, side: int = SIDE, **model: object) -> Study:
    network = name.split()[0]
    task = "classification" if network == "small-cnn" else "segmentation"
    return parse_study(
        {
            "study": {"name": "rounding", "task": task},
            "data": {"classes": ["a", "b"], "channels": ["x"], "dimensions": 2, "size": [side] * 2},
            "model": {"network": network, **NETWORKS[name], **model},
        }
    )


def cancelling(scale: float) -> nn.Module:
    """A network whose output layer sees each channel twice, with opposite large weights."""
    torch.manual_seed(0)
    network = build_network(study_of("small-cnn", 28, **WIDE), 1).train()
    weights = dict(network.named_parameters())
    last = max((name for name in weights if weights[name].ndim == 4), key=lambda n: int(n[0]))
    head = next(name for name in weights if weights[name].ndim == 2)
    with torch.no_grad():
        weights[last][1::2] = weights[last][0::2]
        bias = weights[last.replace("weight", "bias")]
        bias[1::2] = bias[0::2]
        rows = weights[head].view(2, len(bias), -1)  # by class, channel and position
        rows[0, 1::2] = -rows[0, 0::2]
        rows[1] = -rows[0]
        weights[head].mul_(scale)
        weights[head.replace("weight", "bias")].zero_()
    return network


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6, 1e9, 1e12])
def test_a_patient_whose_examples_cancel_contributes_no_more_than_the_clip_norm(
    method: str, scale: float
) -> None:
    network = cancelling(scale)
    torch.manual_seed(1)
    same, others = torch.rand(1, 1, 28, 28).expand(2, -1, -1, -1), torch.rand(3, 1, 28, 28)
    batch = Batch(torch.cat([same, others]), None, torch.tensor([0, 1, 0, 1, 1]))
    patients = PatientBatch(batch, (2, 1, 1, 1))
    alone = clipped_gradient_sum(network, patients.slice(0, 1), cross_entropy, CLIP, method, 64)
    all_four = clipped_gradient_sum(network, patients, cross_entropy, CLIP, method, 64)
    assert norm_of(alone) <= MOST
    assert norm_of(all_four) <= 4 * MOST


SCALES = st.sampled_from([0.0, 1e-40, 1e-20, 1e-6, 1.0, 1e3, 1e6, 1e9, 1e12, 1e18])


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_weights_and_inputs_make_a_contribution_longer_than_the_clip_norm(
    name: str, data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, 2**16))
    torch.manual_seed(seed)
    study = study_of(name)
    network = build_network(study, 1).train()
    with torch.no_grad():
        for weight in network.parameters():
            kind = data.draw(st.sampled_from(["as it is", "scaled", "alternating", "equal"]))
            if kind == "scaled":
                weight.mul_(data.draw(SCALES))
            elif kind == "alternating" and len(weight) > 1:
                weight[1::2] = -weight[0::2][: len(weight[1::2])]
            elif kind == "equal":
                weight.fill_(data.draw(SCALES))
    counts = (data.draw(st.integers(1, 3)), 1)
    images = torch.rand(1, 1, SIDE, SIDE).expand(sum(counts), -1, -1, -1) * data.draw(SCALES)
    shape = (sum(counts),) if study.study.task == "classification" else (sum(counts), SIDE, SIDE)
    batch = Batch(images.contiguous(), None, torch.randint(0, 2, shape))
    patients = PatientBatch(batch, counts)
    for method in ("loop", "ghost", "vmap"):
        one = clipped_gradient_sum(network, patients.slice(0, 1), cross_entropy, CLIP, method, 8)
        both = clipped_gradient_sum(network, patients, cross_entropy, CLIP, method, 8)
        assert norm_of(one) <= MOST
        assert norm_of(both) <= 2 * MOST


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in DEAR else []) for n in PRIVATE_NETWORKS],
)
def test_no_private_network_has_weights_that_pass_the_clip_norm(name: str) -> None:
    """A few of the thousands of tests/attacks/test_weights.py, for every network of the list."""
    assert longest_contribution(name, 1 if name in DEAR else 6) <= MOST


def test_a_norm_of_millions_of_equal_numbers_is_not_too_small() -> None:
    rows = torch.full((1, 2_400_000), 0.1)
    exact = 2_400_000 * float(rows[0, 0].double()) ** 2
    assert float(squared_lengths(rows)) == pytest.approx(exact, rel=1e-9)


def test_the_loop_clips_a_gradient_of_millions_of_equal_numbers_to_the_clip_norm() -> None:
    network = nn.Linear(2_400_000, 1, bias=False)
    batch = Batch(torch.full((1, 2_400_000), 0.1), None, torch.zeros(1, dtype=torch.long))
    patients = PatientBatch(batch, (1,))
    found = loop_clipped_sum(network, patients, lambda logits, targets: logits[:, 0], CLIP)
    assert norm_of(found) <= CLIP * (1 + 1e-6)


@pytest.mark.parametrize("weight", [1e6, 1e9, 1e12, float("inf"), float("nan")])
def test_a_hospital_with_the_default_policy_takes_no_model_with_such_weights(weight: float) -> None:
    """The models of the attack, as the site's policy sees them before anything is computed."""
    asked = study_of("small-cnn")
    private = parse_study(
        {
            **asked.model_dump(mode="json", exclude_none=True),
            "privacy": {"mode": "patient", "noise_multiplier": 20.0, "delta": 1e-6},
            "evaluation": {"keep": "last"},
        }
    )
    policy = Policy(approved=(private.digest,))
    require_allowed(policy, private, Facts(largest_weight=1.0))
    with pytest.raises(
        DeniedError, match=re.escape(f"a received weight is {weight:g}; at most 1000")
    ):
        require_allowed(policy, private, Facts(largest_weight=weight))
