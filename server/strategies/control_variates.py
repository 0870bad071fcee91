"""SCAFFOLD's server half: the control variate that all sites share."""

import torch

from wardround.common.messages.replies import SiteUpdate
from wardround.common.models.sharing import CONTROL
from wardround.common.parameters.schema import Model, Parameters


class ControlVariates:
    """The mean of all sites' control variates (Karimireddy et al. 2020, algorithm 1, line 17).

    ``c <- c + sum_i w_i (c_i_new - c_i_old)`` over the sites that answered, with ``w_i`` the share
    of all sites' weight; with equal hospitals this is the paper's ``1 / N``.
    """

    def __init__(self, trainable: frozenset[str]) -> None:
        self._trainable = trainable
        self._variate: Parameters = {}
        self._change: Parameters = {}

    def begin(self, model: Model) -> None:
        """Forget the updates of a round that did not end."""
        self._change = {}
        for name in model:
            if name in self._trainable and name not in self._variate:
                self._variate[name] = torch.zeros_like(model[name])

    def auxiliary(self) -> Parameters:
        """Return what an instruction carries: the shared control variate."""
        return {CONTROL + name: tensor for name, tensor in self._variate.items()}

    def accumulate(self, update: SiteUpdate, weight: float) -> None:
        """Take a site's change of its own control variate in.

        Args:
            weight: Its share of all sites' weight.
        """
        for name in self._variate:
            change = update.auxiliary[CONTROL + name] * weight
            self._change[name] = (
                self._change[name].add_(change) if self._change.get(name) is not None else change
            )

    def finish(self) -> None:
        """Move the shared control variate."""
        for name, change in self._change.items():
            self._variate[name] = self._variate[name] + change
        self._change = {}

    def state(self) -> Parameters:
        """Return the shared control variate."""
        return dict(self._variate)

    def restore(self, state: Parameters) -> None:
        """Go on from a control variate."""
        self._variate = dict(state)
