"""Attribution by hand: completeness, Grad-CAM against its definition, occlusion, log-odds."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wardround.client.clinic.explanations.attribution import ExplanationError, LogOdds, by_covariate
from wardround.client.clinic.explanations.grad_cam import grad_cam, hires_cam
from wardround.client.clinic.explanations.integrated_gradients import integrated_gradients
from wardround.client.clinic.explanations.methods import METHODS
from wardround.client.clinic.explanations.occlusion import occlusion
from wardround.client.clinic.explanations.randomisation import learnt_layers


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(network: nn.Module) -> nn.Module:
    with torch.no_grad():
        for place, weight in enumerate(network.parameters()):
            weight.copy_(drawn(*weight.shape, seed=place) * 0.3)
    return network


def test_of_a_linear_network_each_value_is_weight_times_input() -> None:
    network, row = seeded(nn.Linear(4, 2)), drawn(1, 4)

    found = integrated_gradients(network, (row,), 1)

    np.testing.assert_allclose(found.values, (network.weight[1] * row[0]).detach(), rtol=1e-5)
    assert found.completeness_error < 1e-5


@pytest.mark.parametrize("dimensions", [2, 3])
def test_of_a_relu_network_the_values_add_up_to_the_difference_of_the_scores(
    dimensions: int,
) -> None:
    convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
    layers = (convolution(2, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(3))
    network, image = nn.Sequential(*layers), drawn(1, 2, *(6,) * dimensions)
    network(image)
    seeded(network)

    found = integrated_gradients(network, (image,), 2)

    difference = float((network(image) - network(torch.zeros_like(image)))[0, 2].detach())
    assert found.values.shape == (6,) * dimensions
    assert found.values.sum() == pytest.approx(difference, rel=0.05)
    assert network[1].inplace


def test_values_add_up_where_the_network_changes_beside_the_baseline_only() -> None:
    # After a group normalisation an image and a tenth of it are alike: equal steps miss the jump.
    layers = (nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    network, image = nn.Sequential(*layers), drawn(1, 1, 8, 8)
    network(image)

    found = integrated_gradients(seeded(network), (image,), 0)

    assert found.completeness_error < 0.05


class Step(nn.Module):
    """Jumps, with a gradient of 0 everywhere: no sum of gradients can say by how much."""

    def forward(self, rows: Tensor) -> Tensor:
        return (rows > 0.5).float() + 0 * rows


def test_incomplete_attributions_are_refused_with_what_they_add_up_to() -> None:
    with pytest.raises(ExplanationError, match=r"add up to 0 where the score\s+differs by 1"):
        integrated_gradients(Step(), (torch.ones(1, 2),), 0)


class Tiny(nn.Module):
    """Two feature maps, their means, and a weight for each: Grad-CAM is known by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1, bias=False)
        self.activation = nn.ReLU(inplace=True)
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.features.weight.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
            self.head.weight.copy_(torch.tensor([[1.0, 0.0], [2.0, -3.0]]))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.activation(self.features(images))
        logits: Tensor = self.head(maps.mean((2, 3)))
        return logits


def test_grad_cam_is_the_mean_gradient_times_the_feature_maps() -> None:
    # d logit_1 / d map = weight / 4 places, so the map is relu(2/4 relu(x) - 3/4 relu(-x)).
    image = torch.tensor([[[[1.0, -2.0], [3.0, 0.0]]]])

    found = grad_cam(Tiny(), (image,), 1)

    np.testing.assert_allclose(found.values, [[0.5, 0.0], [1.5, 0.0]], atol=1e-6)
    assert found.cells == (2, 2)


def test_hires_cam_of_a_flattened_network_adds_up_to_the_logit_where_grad_cam_says_nothing() -> (
    None
):
    # The same weight with opposite signs at two places: its mean over places is 0.
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten(), nn.Linear(4, 1))
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[2].weight.copy_(torch.tensor([[1.0, -1.0, 1.0, -1.0]]))
        network[2].bias.zero_()
    image = torch.tensor([[[[2.0, 0.0], [3.0, 0.0]]]])

    found = hires_cam(network, (image,), 0)

    np.testing.assert_allclose(found.values, [[2.0, 0.0], [3.0, 0.0]], atol=1e-6)
    assert found.values.sum() == pytest.approx(float(network(image).detach()))
    assert not grad_cam(network, (image,), 0).values.any()


def test_a_network_that_works_in_place_is_explained_and_stays_as_it_was() -> None:
    network = seeded(Tiny()).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    for method in METHODS.values():
        method(network, (drawn(1, 1, 8, 8),), 0)

    assert network.activation.inplace
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not network._forward_hooks
    assert all(weight.grad is None for weight in network.parameters())


def test_grad_cam_says_which_methods_do_where_it_does_not() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(ExplanationError, match="use integrated-gradients or occlusion"):
        grad_cam(flat, (drawn(1, 1, 4, 4),), 0)
    with pytest.raises(ExplanationError, match="a table has no map: use integrated-gradients"):
        grad_cam(nn.Linear(3, 2), (drawn(1, 3),), 0)


def test_hiding_the_only_place_that_matters_costs_the_whole_score() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 1, bias=False))
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].weight[0, 3 * 8 + 4] = 5.0  # row 3, column 4

    found = occlusion(network, (torch.ones(1, 1, 8, 8),), 0)

    row, column = np.unravel_index(int(found.values.argmax()), found.values.shape)
    assert (abs(row - 3) <= 1, abs(column - 4) <= 1) == (True, True)
    assert found.values[0, 0] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_volumes_with_clinical_values_beside_them_are_explained(name: str) -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.image_network = nn.Sequential(
                nn.Conv3d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten(),
                nn.Linear(3 * 64, 2),
            )  # fmt: skip
            self.covariate_layer = nn.Linear(2, 2, bias=False)

        def forward(self, images: Tensor, covariates: Tensor) -> Tensor:
            logits: Tensor = self.image_network(images) + self.covariate_layer(covariates)
            return logits

    inputs = (drawn(1, 1, 8, 8, 8), drawn(1, 2, seed=1))
    found = METHODS[name](LogOdds(seeded(Fused()), multi_label=False), inputs, 1)

    assert found.values.shape == (8, 8, 8)
    assert np.isfinite(found.values).all()
    assert len(found.covariates) == (2 if name == "integrated-gradients" else 0)
    layers = learnt_layers(LogOdds(Fused().eval(), multi_label=False), inputs)
    assert layers == ["network.image_network.0", "network.image_network.4"]


def test_log_odds_do_not_change_when_all_logits_grow_alike() -> None:
    logits = drawn(2, 3)
    odds = LogOdds(nn.Identity(), multi_label=False)

    torch.testing.assert_close(odds(logits), odds(logits + 7))
    torch.testing.assert_close(odds(logits).sigmoid(), logits.softmax(1))
    torch.testing.assert_close(LogOdds(nn.Identity(), multi_label=True)(logits), logits)


def test_columns_of_a_covariate_are_added_up() -> None:
    values = by_covariate(np.array([1.0, 2.0, 4.0]), {"age": 1, "sex": 2})
    assert values == {"age": 1.0, "sex": 6.0}
