"""Adversarial images: the worst that may happen to an image within a bound of its grey values.

One kind of bound, L-infinity: no grey value moves further than a radius. Nothing here knows what a
loss is of, so training and the tests of finished models attack alike.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.training.objectives.base import Loss
from wardround.common.study.sections.training import AdversarialSection

# From images ``(B, ...)`` to losses: one an image, or any sum of theirs.
LossOfImages = Callable[[Tensor], Tensor]

_STEP = 2.5  # radii that all steps together may go: the ball's far side is reached from its edge


@dataclass(frozen=True, slots=True, eq=False)
class Ball:
    """The images that an attacker may choose from.

    Attributes:
        centre: ``(B, C, *spatial)``, the images as they are.
        radius: How far each value may go; broadcast to the centre.
        low: Least value that an image can have; broadcast, not above the centre.
        high: Largest value likewise.
    """

    centre: Tensor
    radius: Tensor
    low: Tensor
    high: Tensor

    def nearest(self, images: Tensor) -> Tensor:
        """Return the images of the ball nearest to given ones, ``(B, C, *spatial)``."""
        near = images.clamp(self.centre - self.radius, self.centre + self.radius)
        return near.clamp(self.low, self.high)


def fgsm(loss: LossOfImages, ball: Ball) -> Tensor:
    """Return each image after one step of a whole radius along its gradient's sign.

    Goodfellow, Shlens and Szegedy 2015 (arXiv 1412.6572), section 4.

    Args:
        loss: What the attacker makes large.
        ball: Around B images.

    Returns:
        ``(B, C, *spatial)`` without a graph.
    """
    return ball.nearest(ball.centre + ball.radius * _direction(loss, ball.centre))


def pgd(
    loss: LossOfImages, ball: Ball, steps: int, generator: torch.Generator | None = None
) -> Tensor:
    """Return each image after steps of projected gradient ascent.

    Madry et al. 2018 (arXiv 1706.06083), section 2.1; each step goes 2.5 radii over their number.

    Args:
        loss: What the attacker makes large.
        ball: Around B images.
        steps: How many; each costs a forward and a backward pass.
        generator: Of the CPU: the start is drawn evenly from the ball. None starts at its centre.

    Returns:
        ``(B, C, *spatial)`` without a graph.
    """
    images = ball.centre
    if generator is not None:
        drawn = torch.rand(images.shape, generator=generator).to(images.device)
        images = ball.nearest(images + ball.radius * (2 * drawn - 1))
    length = _STEP / steps * ball.radius
    for _ in range(steps):
        images = ball.nearest(images + length * _direction(loss, images))
    return images


def pgd_with_restarts(
    loss: LossOfImages, ball: Ball, steps: int, restarts: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield, after each random start, the image of the largest loss so far.

    Args:
        loss: One an image, ``(B,)``.
        ball: Around B images.
        steps: Of each start.
        restarts: How many starts.
        generator: Of the CPU.
    """
    best = torch.full((len(ball.centre),), -torch.inf, device=ball.centre.device)
    found = ball.centre
    for _ in range(restarts):
        tried = pgd(loss, ball, steps, generator)
        with torch.no_grad():
            losses = loss(tried)
        better = losses > best
        found = torch.where(better.view(-1, *(1,) * (tried.ndim - 1)), tried, found)
        best = torch.where(better, losses, best)
        yield found


@contextmanager
def as_evaluated(network: nn.Module) -> Iterator[None]:
    """Put the network in evaluation mode, with gradients; every module's mode is restored.

    Dropout would only hide a part of the gradient, and running means must not learn from attacks.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@dataclass(frozen=True, slots=True, eq=False)
class TrainingAttack:
    """Changes the images of training batches against the network that is being trained.

    Attributes:
        loss: The study's, from outputs and targets.
        generator: Of the CPU, for the random starts.
    """

    options: AdversarialSection
    network: nn.Module
    loss: Loss
    generator: torch.Generator

    def change(self, batch: Batch, grey_steps: Tensor) -> Batch:
        """Return the batch with its first images changed; the network is as it was.

        A batch is drawn in random order, so its first images are any.

        Args:
            batch: On the network's device, augmented.
            grey_steps: ``(B, C)``: what one 255th of an image's grey range is to the network.
        """
        images = batch.images
        if images is None:
            return batch
        count = max(1, round(self.options.fraction * len(images)))
        ball = _ball_of(images[:count], self.options.epsilon * grey_steps[:count])
        covariates = None if batch.covariates is None else batch.covariates[:count]
        part = Batch(None, covariates, batch.targets[:count])

        def loss(changed: Tensor) -> Tensor:
            return self.loss(self.network(*replace(part, images=changed).inputs), part.targets)

        with as_evaluated(self.network):
            changed = pgd(loss, ball, self.options.steps, self.generator)
        return replace(batch, images=torch.cat([changed, images[count:]]))


def _ball_of(images: Tensor, radius: Tensor) -> Ball:
    """Return the ball around prepared images, within the range of each plane of each image."""
    shape = (*images.shape[:2], *(1,) * (images.ndim - 2))
    flat = images.flatten(2)
    low, high = flat.amin(2).view(shape), flat.amax(2).view(shape)
    return Ball(images, radius.to(images).view(shape), low, high)


def _direction(loss: LossOfImages, images: Tensor) -> Tensor:
    """Return the sign of the loss's gradient; 0 where it is no number."""
    moved = images.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(moved).sum(), moved)
    return gradient.nan_to_num(0.0, 0.0, 0.0).sign()
