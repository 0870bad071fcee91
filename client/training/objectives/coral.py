"""CORAL: covariances of features are held to those of all sites' patients."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.training.objectives.base import LocalStart
from wardround.common.models.networks.feature_moments import FeatureMoments, moments_of
from wardround.common.models.sharing import head_layer
from wardround.common.parameters.schema import Parameters


class Coral:
    """``loss + alpha |C - C_all|^2 / (4 d^2)`` (Sun and Saenko 2016, "Deep CORAL", equation 1).

    ``C`` is the covariance of the d features of a batch: of what enters the last layer, of an image
    or of each voxel. ``C_all`` is that of all sites' patients in the round before, from the mean
    and the second moments that the received model holds. A site replaces them by those of its own
    patients as they pass, and they leave with its update: the mean of sites' moments is that of all
    patients, so that no more than ``d + d^2`` numbers a site leave. Covariances are divided by n,
    where the paper divides by n - 1, so that sites add up. A first round aligns nothing.
    """

    def __init__(self, start: LocalStart) -> None:
        head = head_layer(start.network)
        moments = moments_of(head)
        self._weight = start.plan.options.feature_weight
        self._moments = moments
        received = covariance_of(moments.mean.clone(), moments.second.clone())
        self._target = received if bool(moments.second.any()) else None
        self._rows = 0
        self._latest: list[Tensor] = []
        own = weakref.ref(self)

        def begin(network: nn.Module, inputs: tuple[Any, ...]) -> None:
            if (objective := own()) is not None:
                objective._latest.clear()

        def keep(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            if (objective := own()) is not None:
                objective._latest.append(inputs[0])

        # The network outlives the round, and is that of the next site too.
        for hook in (
            start.network.register_forward_pre_hook(begin),
            head.register_forward_pre_hook(keep),
        ):
            weakref.finalize(self, hook.remove)

    def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
        """Return the loss plus the distance of the covariances, a scalar."""
        if not self._latest:
            return loss
        rows = torch.cat([_rows(features.float(), self._moments) for features in self._latest])
        self._latest.clear()
        mean, second = rows.mean(0), rows.T @ rows / len(rows)
        self._rows += len(rows)
        self._moments.take(mean.detach(), second.detach(), len(rows) / self._rows)
        if self._target is None:
            return loss
        apart = covariance_of(mean, second) - self._target.to(mean)
        return loss + self._weight * apart.square().sum() / (4 * len(mean) ** 2)

    def correct(self) -> None:
        """Leave the gradients as they are."""

    def memory(self) -> Parameters:
        """Return nothing."""
        return {}

    def auxiliary(self) -> Parameters:
        """Return nothing: the moments are numbers of the network."""
        return {}


def covariance_of(mean: Tensor, second: Tensor) -> Tensor:
    """Return ``(d, d)`` of features with the mean ``(d,)`` and the second moments ``(d, d)``."""
    return second - torch.outer(mean, mean)


def _rows(features: Tensor, moments: FeatureMoments) -> Tensor:
    """Return features as ``(N, d)``: channels first in images, last in tokens and vectors."""
    width = len(moments.mean)
    if features.ndim > 2 and features.shape[1] == width:
        features = features.movedim(1, -1)
    return features.reshape(-1, width)
