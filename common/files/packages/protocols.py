"""What an installed package may register, one protocol a kind; each is checked where it is used.

An entry point names a class or a function of the package. A network and a data set are made by
calling it; a loss, a transform, a metric and a strategy are called, or have the methods below.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

LARGEST_METRIC = 64  # numbers that a metric counts of an examination

# ``wardround.networks``: a class of ``torch.nn.Module``, or a function that returns one. It is
# called with those of spatial_dims, in_channels, out_channels and image_size that it takes, and
# with what ``model.arguments`` says, all by keyword. Its module takes images ``(B, in_channels,
# *spatial)`` and returns logits ``(B, out_channels)``, or ``(B, out_channels, *spatial)``.
NetworkBuilder = Callable[..., "nn.Module"]


class Loss(Protocol):
    """``wardround.losses``: a function of outputs and targets."""

    def __call__(
        self, logits: "Tensor", targets: "Tensor", class_weights: "Tensor | None"
    ) -> "Tensor":
        """Return the loss of each example, ``(B,)``; none may depend on another example.

        Args:
            logits: ``(B, K)`` or ``(B, K, *spatial)`` float32.
            targets: ``(B,)`` or ``(B, *spatial)`` class indices, ``(B, K)`` 0/1 for multi-label, or
                ``(B,)`` numbers of a regression.
            class_weights: ``(K,)``, or None.
        """


class Transform(Protocol):
    """``wardround.transforms``: a random change of one training example."""

    def __call__(
        self, image: "Tensor", mask: "Tensor | None", generator: "Generator"
    ) -> "tuple[Tensor, Tensor | None]":
        """Return the changed image and mask, of the same shapes and types.

        Args:
            image: ``(C, *spatial)`` float on any device.
            mask: ``(*spatial)`` labels; None where there are none.
            generator: Of the CPU; the only source of randomness.
        """


class Metric(Protocol):
    """``wardround.metrics``: a number in [0, 1], more of it better, that follows from sums.

    A class, made without arguments. What it counts of an examination is cut to [0, 1] and rounded
    to 1/1024, and only sums over examinations leave a site.
    """

    def size(self, classes: int) -> int:
        """Return how many numbers are counted, from 1 to 64, for K classes (1 of a regression)."""

    def count(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """Return ``(B, size)``, each in [0, 1], of B examinations by themselves.

        Args:
            outputs: ``(B, K)`` or ``(B, K, *spatial)`` float32 logits; ``(B, 1)`` of a regression.
            targets: As a loss takes them.
        """

    def value(self, sums: "list[float]", examinations: int) -> float:
        """Return the metric of these sums, in [0, 1]; NaN where it is not defined."""


class AggregationRule(Protocol):
    """``wardround.strategies``: how a round's changes combine, at the server."""

    def __call__(self, changes: "Tensor", weights: "Tensor") -> "Tensor":
        """Return ``(D,)``: the change of the model.

        Args:
            changes: ``(N, D)``: what each of N sites changed, one row a site, all numbers of the
                model one after the other.
            weights: ``(N,)`` of sum 1, from the sites' counts of examinations.
        """
