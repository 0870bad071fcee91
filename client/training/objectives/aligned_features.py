"""CORAL without a message: a site's features are held to the statistics of the received model."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.training.objectives.base import LocalStart
from wardround.common.parameters.schema import Parameters

_BATCH_NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class AlignedFeatures:
    """``loss + alpha d``, where d compares a batch's features with those of all sites.

    Deep CORAL (Sun and Saenko 2016, ECCV workshops) makes the covariances of features equal in two
    domains. Here their diagonal, and the means, at each batch normalisation: its running mean ``m``
    and variance ``v`` in the received model are the mean of all sites', so nothing leaves beside
    the model. Of a channel with mean ``mu`` and variance ``s`` in the batch d is the squared
    2-Wasserstein distance of two Gaussians in units of ``v``: ``(mu - m)^2 / v + (sqrt(s / v) -
    1)^2``; then the mean over channels and layers. A site's first round, in which the model has
    seen nobody, aligns nothing.
    """

    def __init__(self, start: LocalStart) -> None:
        self._weight = start.plan.options.feature_weight
        self._latest: dict[str, Tensor] = {}
        self._received = dict(_statistics(start))
        own = weakref.ref(self)
        for name in self._received:

            def keep(layer: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
                if (objective := own()) is not None:
                    objective._latest[name] = inputs[0]

            # The network outlives the round, and is that of the next site too.
            hook = start.network.get_submodule(name).register_forward_pre_hook(keep)
            weakref.finalize(self, hook.remove)

    def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
        """Return the loss plus the distance, a scalar."""
        found = [
            _distance(features.float(), *self._received[name])
            for name, features in self._latest.items()
        ]
        self._latest.clear()
        return loss + self._weight * torch.stack(found).mean() if found else loss

    def correct(self) -> None:
        """Leave the gradients as they are."""

    def memory(self) -> Parameters:
        """Return nothing."""
        return {}

    def auxiliary(self) -> Parameters:
        """Return nothing."""
        return {}


def _statistics(start: LocalStart) -> "list[tuple[str, tuple[Tensor, Tensor, float]]]":
    """Return mean, variance and the term under the root of each layer that has seen somebody."""
    shared, found = set(start.layout.shared), []
    for name, layer in start.network.named_modules():
        if not isinstance(layer, _BATCH_NORMALISATIONS) or f"{name}.running_mean" not in shared:
            continue
        mean = start.parameters[f"{name}.running_mean"]
        variance = start.parameters[f"{name}.running_var"]
        device = next(start.network.parameters()).device
        if bool((mean != 0).any()) or bool((variance != 1).any()):
            held = (mean.float().to(device), variance.float().to(device), layer.eps)
            found.append((name, held))
    return found


def _distance(features: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    """Return the mean distance over channels, a scalar, of features ``(B, C, *spatial)``."""
    axes = tuple(axis for axis in range(features.ndim) if axis != 1)
    spread, centre = torch.var_mean(features, axes, correction=0)
    variance = variance + eps
    ratio = ((spread + eps) / variance).sqrt()
    return ((centre - mean).square() / variance + (ratio - 1).square()).mean()
