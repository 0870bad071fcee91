"""Opacus as a way of clipping: exact for each patient, or refused by name (P6b)."""

import random
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.hostile.weights import patients_of as boxes_of
from tests.support.hostile.weights import subject_of
from tests.unit.client.privacy.gradients.test_clipped_sum import (
    batch_for,
    cross_entropy,
    distance,
    private_network,
    study_for,
    typical_norm,
)
from tests.unit.client.privacy.gradients.unknown_networks import (
    FOUND,
    GHOST_KNOWS,
    REFUSED,
    SIDE,
    Recurrent,
    fixed,
)
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.choice import verified_mode
from wardround.client.privacy.gradients.clipped_sum import clipped_gradient_sum
from wardround.client.privacy.gradients.loop import loop_clipped_sum
from wardround.client.privacy.gradients.opacus_modes import OPACUS_MODES
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.training.losses.boxes import focal_giou
from wardround.client.training.losses.mean_loss import MeanLoss
from wardround.common.errors import RunError, StudyError
from wardround.common.models.private_layers import replace_layers
from wardround.common.study.private_networks import PRIVATE_NETWORKS

COUNTS = (2, 1, 3)
MOST = 1 + 1e-3
DEAR = ("densenet121", "resnet18", "resnet50", "efficientnet-b0")


def made(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return make().double().train()


def patients(counts: tuple[int, ...] = COUNTS, seed: int = 1) -> PatientBatch:
    torch.manual_seed(seed)
    images = torch.randn(sum(counts), 1, SIDE, SIDE).double()
    return PatientBatch(Batch(images, None, torch.randint(0, 3, (sum(counts),))), counts)


def made_up() -> tuple[Tensor]:
    return (torch.randn(4, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)),)


def norm_of(sums: dict[str, Tensor]) -> float:
    return float(torch.cat([part.double().flatten() for part in sums.values()]).norm())


@pytest.mark.parametrize("name", FOUND)
def test_the_sum_is_that_of_one_pass_a_patient_where_ghost_clipping_knows_no_rule(
    name: str,
) -> None:
    network, batch = made(FOUND[name]), patients()
    clip = typical_norm(network, batch)
    expected = loop_clipped_sum(network, batch, cross_entropy, clip)
    found = clipped_gradient_sum(network, batch, cross_entropy, clip, "opacus-hooks", 16)
    assert distance(found, expected) < 1e-12
    cut = clipped_gradient_sum(network, batch, cross_entropy, clip, "opacus-hooks", 3)
    assert distance(cut, expected) < 1e-12
    if name in GHOST_KNOWS:
        return
    with pytest.raises(RunError, match=r"has no rule|is used twice"):
        clipped_gradient_sum(network, batch, cross_entropy, clip, "ghost", 16)


@pytest.mark.parametrize("name", FOUND)
def test_a_network_of_ones_own_is_tried_and_opacus_hooks_are_chosen(name: str) -> None:
    assert verified_mode(made(FOUND[name]).float(), made_up()) == "opacus-hooks"


@pytest.mark.parametrize(("name", "words"), [(name, words) for name, (_, words) in REFUSED.items()])
def test_a_network_that_opacus_gets_wrong_is_refused(name: str, words: str) -> None:
    with pytest.raises(RunError, match=words):
        verified_mode(made(REFUSED[name][0]).float(), made_up())


@pytest.mark.parametrize("mode", OPACUS_MODES)
def test_the_network_is_as_before_after_a_pass_and_after_a_failure(mode: str) -> None:
    network, batch = made(FOUND["layers of one's own"]), patients()
    kept = torch.ones(3)
    network.get_parameter("head.scale").grad = kept.double()
    layers = {name: set(layer.__dict__) for name, layer in network.named_modules()}
    try:
        clipped_gradient_sum(network, batch, cross_entropy, 1.0, f"opacus-{mode}", 16)
    except RunError:
        assert mode == "ew"
    assert {name: set(layer.__dict__) for name, layer in network.named_modules()} == layers
    assert all(not layer._forward_hooks for layer in network.modules())
    assert all(not layer._backward_hooks for layer in network.modules())
    assert all(not vars(weight) for weight in network.parameters())
    assert torch.equal(network.get_parameter("head.scale").grad, kept.double())
    assert network.get_parameter("body.0.weight").grad is None
    assert network.get_submodule("body.1").inplace is True


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
@pytest.mark.parametrize("name", ["an embedding", "a class token"])
def test_a_patient_who_is_no_number_counts_as_nobody(name: str, value: float) -> None:
    network, batch = made(FOUND[name]).float(), patients()
    batch = PatientBatch(batch.examples.to(torch.device("cpu")), batch.counts)
    images = batch.examples.images
    assert images is not None
    images = images.float()
    images[2] = value
    network_input = PatientBatch(Batch(images, None, batch.examples.targets), batch.counts)
    found = clipped_gradient_sum(network, network_input, cross_entropy, 1.0, "opacus-hooks", 16)
    expected = loop_clipped_sum(network, network_input, cross_entropy, 1.0)
    assert all(part.isfinite().all() for part in found.values())
    assert distance(found, expected) < 1e-4


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_weights_make_a_contribution_longer_than_the_clip_norm(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(FOUND)))
    network = made(FOUND[name], data.draw(st.integers(0, 99))).float()
    scales = st.sampled_from([0.0, 1e-40, 1e-6, 1.0, 1e3, 1e9, 1e18])
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(data.draw(scales))
    batch = patients((data.draw(st.integers(1, 3)), 1), data.draw(st.integers(0, 99)))
    images = batch.examples.images
    assert images is not None
    single = Batch(images.float() * data.draw(scales), None, batch.examples.targets)
    batch = PatientBatch(single, batch.counts)
    both = clipped_gradient_sum(network, batch, cross_entropy, 1.0, "opacus-hooks", 8)
    one = clipped_gradient_sum(network, batch.slice(0, 1), cross_entropy, 1.0, "opacus-hooks", 8)
    assert norm_of(one) <= MOST
    assert norm_of(both) <= 2 * MOST


def test_the_fixer_keeps_the_numbers_of_a_recurrent_network() -> None:
    network = made(Recurrent).float()
    replaced = replace_layers(network)
    (images,) = made_up()
    assert torch.allclose(network(images), replaced(images), atol=1e-6)


def test_a_fixer_that_replaces_nothing_is_refused() -> None:
    with pytest.raises(StudyError, match="replaces nothing in Sequential"):
        fixed(lambda: nn.Sequential(nn.Linear(2, 2)))()


def test_a_detector_whose_head_is_asked_at_each_level_has_the_sum_of_the_loop() -> None:
    """retinanet, which neither ghost clipping nor vmap can do."""
    subject = subject_of("retinanet")
    batch = boxes_of(subject, random.Random(3))
    loss = MeanLoss(focal_giou).per_sample
    expected = loop_clipped_sum(subject.network, batch, loss, 0.5)
    way = f"opacus-{PRIVATE_NETWORKS['retinanet'].opacus}"
    found = clipped_gradient_sum(subject.network, batch, loss, 0.5, way, 8)
    assert distance(found, expected) < 1e-5
    with pytest.raises(RunError, match="is used twice"):
        clipped_gradient_sum(subject.network, batch, loss, 0.5, "ghost", 8)


def _known() -> list[object]:
    return [
        pytest.param(name, marks=[pytest.mark.long] if name in DEAR else [])
        for name, entry in PRIVATE_NETWORKS.items()
        if entry.opacus and name != "retinanet"
    ]


@pytest.mark.parametrize("name", _known())
def test_the_way_of_every_known_network_gives_the_sum_of_the_loop(name: str) -> None:
    entry = PRIVATE_NETWORKS[name]
    study = study_for(name, 2, normalisation=entry.normalisations[0])
    network, batch = private_network(study), batch_for(study, (2, 1))
    clip = typical_norm(network, batch)
    expected = loop_clipped_sum(network, batch, cross_entropy, clip)
    found = clipped_gradient_sum(network, batch, cross_entropy, clip, f"opacus-{entry.opacus}", 16)
    assert distance(found, expected) < 1e-10
