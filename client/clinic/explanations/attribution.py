"""What an explanation is: how much each part of an input speaks for a class."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wardround.common.errors import InputError

Floats: TypeAlias = NDArray[np.float64]
Inputs: TypeAlias = tuple[Tensor, ...]
"""What a network takes of one examination: an image ``(1, P, *spatial)``, covariates ``(1, F)``."""


class ExplanationError(InputError):
    """A method cannot explain this network, or its result is not to be shown."""


@dataclass(frozen=True, slots=True, eq=False)
class Attribution:
    """How much each part of an examination speaks for a class; what speaks against is negative.

    Attributes:
        values: ``(*spatial)`` of an image, summed over its planes; ``(F,)`` of a table.
        cells: The grid on which the method looked; the map of an image is stretched from it.
        completeness_error: How far the values are from adding up to what the score gained over the
            baseline, as a share of that; NaN where the method does not say that they do.
        covariates: ``(F,)`` of the clinical values beside an image; empty where there are none.
    """

    values: Floats
    cells: tuple[int, ...]
    completeness_error: float = float("nan")
    covariates: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def positive(self) -> Floats:
        """The map as it is shown: only what speaks for the class."""
        return np.maximum(self.values, 0.0)


Method: TypeAlias = Callable[[nn.Module, Inputs, int], Attribution]
"""From a network (its mode and numbers stay as they are), one examination and an output of it."""


def working_copy(network: nn.Module) -> nn.Module:
    """Return a copy that can be hooked and derived, in evaluation mode; the original stays.

    No layer of it changes its input in place: autograd refuses that after a hook ("view ... is
    being modified inplace"), and the values that a hook kept would be changed too.
    """
    copy = deepcopy(network).eval()
    for module in copy.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment] # torch types it a module
    return copy.requires_grad_(True)


class OfImage(nn.Module):
    """A network of an image and clinical values as one of the image alone: the values are fixed."""

    def __init__(self, network: nn.Module, covariates: Tensor | None) -> None:
        super().__init__()
        self.network = network
        self._covariates = covariates

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, K)`` of images ``(B, P, *spatial)``."""
        if self._covariates is None:
            logits: Tensor = self.network(images)
        else:
            logits = self.network(images, self._covariates.expand(len(images), -1))
        return logits


class LogOdds(nn.Module):
    """A network whose outputs are what the scores are made of: each class's log-odds.

    A softmax does not change when all logits grow alike, so that what raises one logit need not
    speak for its class. The log-odds ``z_k - log sum_{j != k} exp z_j`` say what does. A label's
    logit, whose score is a sigmoid, is its log-odds already.
    """

    def __init__(self, network: nn.Module, multi_label: bool) -> None:
        super().__init__()
        self.network = network
        self._multi_label = multi_label

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return log-odds ``(B, K)``."""
        logits: Tensor = self.network(*inputs)
        if self._multi_label or logits.shape[1] == 1:
            return logits
        own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
        others = logits[:, None, :].masked_fill(own, float("-inf")).logsumexp(2)
        return logits - others


def image_and_covariates(inputs: Inputs) -> tuple[Tensor, Tensor | None]:
    """Return the image ``(1, C, *spatial)`` and the clinical values ``(1, F)`` of an examination.

    Raises:
        ExplanationError: There is no image.
    """
    image = inputs[0]
    if image.ndim < 4:
        msg = "a table has no map: use integrated-gradients, which says how much each value speaks."
        raise ExplanationError(msg)
    return image, inputs[1] if len(inputs) > 1 else None


def by_covariate(columns: Floats, widths: Mapping[str, int]) -> dict[str, float]:
    """Return the sum over the input columns of each covariate.

    Args:
        columns: ``(F,)``.
        widths: How many columns each covariate has, in their order.
    """
    sums, start = {}, 0
    for name, width in widths.items():
        sums[name] = float(columns[start : start + width].sum())
        start += width
    return sums
