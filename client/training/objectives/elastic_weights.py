"""Elastic weight consolidation: what old patients needed of a network stays near where it was."""

import torch
from torch import Tensor

from wardround.client.data.batch import Batch
from wardround.client.training.objectives.base import LocalStart
from wardround.common.errors import RunError
from wardround.common.parameters.schema import Parameters


class ElasticWeights:
    """``loss + lambda / 2 sum_i F_i (w_i - w*_i)^2`` (Kirkpatrick et al. 2017, PNAS, equation 3).

    ``w*`` is the parent's model, ``F`` the diagonal of the Fisher information on the site's own old
    patients, divided by its mean: where F is the same everywhere this is FedProx towards the
    parent, and lambda has the size of its mu. The term enters as its exact gradient.
    """

    def __init__(self, start: LocalStart) -> None:
        if start.parent is None:
            msg = "the study names no parent, whose model would be held on to."
            raise RunError(msg)
        anchors, fisher = dict(start.parent.network.named_parameters()), start.parent.fisher
        self._weight = start.parent.weight
        self._held = [
            (weight, anchors[name].detach(), fisher[name])
            for name, weight in start.shared_weights()
            if name in fisher
        ]

    def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
        """Return the loss, a scalar: the term enters as its gradient."""
        return loss

    @torch.no_grad()
    def correct(self) -> None:
        """Add ``lambda F (w - w*)``."""
        for weight, anchor, fisher in self._held:
            if weight.grad is not None:
                weight.grad.addcmul_(weight - anchor, fisher, value=self._weight)

    def memory(self) -> Parameters:
        """Return nothing."""
        return {}

    def auxiliary(self) -> Parameters:
        """Return nothing: the Fisher information stays at the site."""
        return {}
