"""The mean of the networks that the steps of a round came by."""

import torch
from torch import Tensor, nn


class MeanWeights:
    """An exponential moving average over the steps of one round, of what a gradient changes.

    ``e_k = sum_j d^(k-j) w_j / sum_j d^(k-j)`` over the steps ``j = 1..k``: after one step it is
    the network itself, so that a short round is not drawn back to where it started (the correction
    of Kingma and Ba 2015, section 3). Running means of normalisations stay those of the last step.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._weights: list[Tensor] = [w for w in network.parameters() if w.requires_grad]
        self._decay = decay
        self._mean: list[Tensor] = []
        self._total = 0.0

    def take(self) -> None:
        """Take the network in as it is after a step."""
        with torch.no_grad():
            self._total = self._decay * self._total + 1
            if not self._mean:
                self._mean = [weight.detach().clone() for weight in self._weights]
                return
            torch._foreach_lerp_(self._mean, self._weights, 1 / self._total)

    def write(self) -> None:
        """Give the network the mean; without a step it stays as it is."""
        with torch.no_grad():
            for weight, mean in zip(self._weights, self._mean, strict=False):
                weight.copy_(mean)


def mean_weights(network: nn.Module, decay: float | None) -> MeanWeights | None:
    """Return what gathers the mean of a round, None where a study asks for none."""
    return None if decay is None else MeanWeights(network, decay)
