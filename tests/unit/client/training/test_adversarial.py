"""Adversarial images: within their bound, worse than before, and equal to another library's."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.training.adversarial import (
    Ball,
    TrainingAttack,
    as_evaluated,
    fgsm,
    pgd,
    pgd_with_restarts,
)
from wardround.common.study.sections.training import AdversarialSection

EPSILONS = (1.0, 2.0, 4.0, 8.0)


class Normalised(nn.Module):
    """A small network of grey values from 0 to 255, its normalisation inside."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))

    def forward(self, images: Tensor) -> Tensor:
        mean = images.mean((1, 2, 3), keepdim=True)
        return self.layers((images - mean) / images.std((1, 2, 3), keepdim=True))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """A network that tells images with a bright corner from others, and is sometimes wrong."""
    network, (images, targets) = Normalised(), drawn(400, seed=1)
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(network(images), targets).backward()
        optimiser.step()
    return network.eval()


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(20, 200, (count, 1, 8, 8), generator=generator).float()
    targets = torch.randint(0, 2, (count,), generator=generator)
    images[:, :, :3, :3] += 40 * targets.view(-1, 1, 1, 1)
    return images.clamp(0, 255), targets


def ball(images: Tensor, epsilon: float) -> Ball:
    return Ball(images, torch.tensor(epsilon), torch.tensor(0.0), torch.tensor(255.0))


def loss_of(network: nn.Module, targets: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda images: F.cross_entropy(network(images), targets, reduction="none")


def accuracy(network: nn.Module, images: Tensor, targets: Tensor) -> float:
    with torch.no_grad():
        return float((network(images).argmax(1) == targets).float().mean())


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_attacked_images_stay_within_the_bound_and_the_range(
    network: nn.Module, epsilon: float
) -> None:
    images, targets = drawn(50, seed=2)
    images[0], images[1] = 0.0, 255.0
    images[:2, :, 0, 0] = 128.0  # or their deviation is 0
    loss, here = loss_of(network, targets), ball(images, epsilon)
    for changed in (fgsm(loss, here), pgd(loss, here, 7, torch.Generator().manual_seed(0))):
        assert not changed.requires_grad
        assert float((changed - images).abs().max()) <= epsilon + 1e-4
        assert 0 <= float(changed.min()) <= float(changed.max()) <= 255
        assert not torch.equal(changed, images)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_many_steps_do_more_harm_than_one_and_one_more_than_none(
    network: nn.Module, epsilon: float
) -> None:
    images, targets = drawn(200, seed=3)
    loss, here = loss_of(network, targets), ball(images, epsilon)
    clean = accuracy(network, images, targets)
    one = accuracy(network, fgsm(loss, here), targets)
    many = accuracy(network, pgd(loss, here, 20, torch.Generator().manual_seed(0)), targets)
    assert one <= clean
    assert many <= one + 0.01
    with torch.no_grad():
        assert loss(fgsm(loss, here)).mean() > loss(images).mean()


def test_more_starts_never_find_a_smaller_loss(network: nn.Module) -> None:
    images, targets = drawn(50, seed=4)
    loss = loss_of(network, targets)
    generator = torch.Generator().manual_seed(0)
    found = list(pgd_with_restarts(loss, ball(images, 4.0), 5, 4, generator))
    with torch.no_grad():
        losses = [loss(one) for one in found]
    assert len(found) == 4
    for before, after in pairwise(losses):
        assert bool((after >= before).all())


def test_a_gradient_that_is_no_number_moves_nothing() -> None:
    images = torch.full((1, 1, 2, 2), 5.0)
    changed = fgsm(lambda given: (given - 5.0).abs().sqrt().sum() * torch.nan, ball(images, 2.0))
    assert torch.equal(changed, images)


def test_attacks_of_another_library_do_as_much_harm(
    network: nn.Module, robustness_toolbox: tuple[Any, Any]
) -> None:
    """The Adversarial Robustness Toolbox at the same budget, on a small network."""
    art, estimators = robustness_toolbox
    images, targets = drawn(400, seed=5)
    classifier = estimators.PyTorchClassifier(
        network, nn.CrossEntropyLoss(), (1, 8, 8), 2, clip_values=(0.0, 255.0), device_type="cpu"
    )
    loss = loss_of(network, targets)
    for epsilon in EPSILONS:
        single = art.FastGradientMethod(classifier, eps=epsilon, batch_size=400)
        expected = torch.from_numpy(single.generate(images.numpy(), targets.numpy()))
        found = fgsm(loss, ball(images, epsilon))
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-3)
        many = art.ProjectedGradientDescentPyTorch(
            classifier, eps=epsilon, eps_step=2.5 * epsilon / 20, max_iter=20, batch_size=400,
            verbose=False,
        )  # fmt: skip
        expected = torch.from_numpy(many.generate(images.numpy(), targets.numpy()))
        found = pgd(loss, ball(images, epsilon), 20)
        one, other = (accuracy(network, changed, targets) for changed in (found, expected))
        assert one == pytest.approx(other, abs=0.01), epsilon


class Dropping(nn.Module):
    """A network whose layers behave otherwise in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 2)
        )
        self.layers[2].eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def training_attack(network: nn.Module, **options: float) -> TrainingAttack:
    generator = torch.Generator().manual_seed(0)
    section = AdversarialSection.model_validate(options)
    return TrainingAttack(section, network, nn.CrossEntropyLoss(), generator)


def test_a_training_batch_is_changed_by_each_images_own_step() -> None:
    network = Dropping()  # in training, but for its dropout
    images = torch.rand((4, 2, 4, 4), generator=torch.Generator().manual_seed(0))
    batch = Batch(images, None, torch.tensor([0, 1, 0, 1]))
    steps = torch.tensor([[0.01, 0.02], [0.0, 0.0], [0.001, 0.0], [0.01, 0.01]])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    changed = training_attack(network, epsilon=4, steps=3, fraction=0.75).change(batch, steps)
    assert changed.images is not None
    moved = (changed.images - images).abs().amax((2, 3))
    assert bool((moved <= 4 * steps + 1e-6).all())
    assert bool((moved[:3][steps[:3] > 0] > 0).all())
    assert not moved[3].any(), "a quarter of the batch stays as it is"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())
    assert network.training
    assert not network.layers[2].training


def test_a_training_batch_of_patches_keeps_its_range() -> None:
    network = Dropping()
    images = torch.rand((2, 2, 4, 4), generator=torch.Generator().manual_seed(1))
    batch = Batch(images, None, torch.tensor([0, 1]))
    changed = training_attack(network, epsilon=64).change(batch, torch.full((2, 2), 1.0)).images
    assert changed is not None
    assert bool((changed.amax((2, 3)) <= images.amax((2, 3))).all())
    assert bool((changed.amin((2, 3)) >= images.amin((2, 3))).all())


def test_modes_are_restored_after_an_error() -> None:
    network = Dropping()

    def fail() -> None:
        with as_evaluated(network):
            assert not any(module.training for module in network.modules())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert network.training
