"""A map that does not depend on what was learnt is found out."""

import numpy as np
import torch
from torch import Tensor, nn

from wardround.client.clinic.explanations.grad_cam import grad_cam
from wardround.client.clinic.explanations.likeness import (
    rank_correlation,
    share_inside,
    structural_similarity,
)
from wardround.client.clinic.explanations.randomisation import (
    learnt_layers,
    randomise,
    with_random_layers,
)


class Indifferent(nn.Module):
    """The last layer's output is multiplied by 0: the map comes from the image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(1)
        self.last = nn.Linear(64, 2)

    def forward(self, images: Tensor) -> Tensor:
        pixels = self.pool(images)
        shown: Tensor = pixels.mean((1, 2, 3))[:, None] + 0 * self.last(pixels.flatten(1))
        return shown


class Learnt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 16, 3, padding=1)
        self.last = nn.Linear(16, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(self.features(images).relu().mean((2, 3)))
        return logits


def image() -> Tensor:
    return torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_map_of_a_network_whose_last_layer_does_not_matter_is_marked() -> None:
    network = Indifferent().eval()
    shown = grad_cam(network, (image(),), 0).positive

    found = randomise(grad_cam, network, (image(),), 0, shown)

    assert found.last_layer > 0.99
    assert not found.passed


def test_a_map_that_hangs_on_the_last_layer_changes_with_it() -> None:
    torch.manual_seed(3)
    network = Learnt().eval()
    with torch.no_grad():
        network.last.weight.mul_(0.1)
        network.last.weight[0, :2] = 3.0
    shown = grad_cam(network, (image(),), 0).positive

    found = randomise(grad_cam, network, (image(),), 0, shown)

    assert found.last_layer < 0.9
    assert len(found.cascade) == 3


def test_layers_are_random_from_the_last_one_down_and_the_model_stays() -> None:
    network = Learnt().eval()
    before = network.last.weight.clone()
    layers = learnt_layers(network, (image(),))

    other = with_random_layers(network, layers[-1:], seed=1)

    assert layers == ["features", "last"]
    assert torch.equal(network.last.weight, before)
    assert not torch.equal(other.get_submodule("last").weight, before)
    assert torch.equal(other.get_submodule("features").weight, network.features.weight)


def test_the_same_draw_gives_the_same_weights_and_leaves_the_global_state() -> None:
    network, state = Learnt().eval(), torch.get_rng_state()

    first, second = (with_random_layers(network, ["last"], seed=5) for _ in range(2))

    assert torch.equal(first.get_submodule("last").weight, second.get_submodule("last").weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_likeness_of_maps() -> None:
    ramp = np.arange(64, dtype=float).reshape(8, 8)
    assert rank_correlation(ramp, ramp**2) == 1.0
    assert rank_correlation(ramp, -ramp) == -1.0
    assert rank_correlation(ramp, np.zeros((8, 8))) == 0.0
    assert structural_similarity(ramp, 3 * ramp) > 0.999
    assert structural_similarity(ramp, ramp.T) < 0.9
    half = np.zeros((8, 8), bool)
    half[:, :4] = True
    assert share_inside(np.ones((8, 8)), half) == 0.5
    assert np.isnan(share_inside(np.zeros((8, 8)), half))
