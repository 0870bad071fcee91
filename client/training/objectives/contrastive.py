"""MOON's local half: features near the received model's, far from the site's own last ones."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wardround.client.data.batch import Batch
from wardround.client.training.objectives.base import LocalStart
from wardround.common.models.sharing import head_layer
from wardround.common.parameters.schema import (
    Parameters,
    prefixed,
    read_parameters,
    under,
    write_parameters,
)

_PREVIOUS = "previous/"


class Contrastive:
    """The model-contrastive loss (Li et al. 2021, CVPR, equations 3 and 5).

    ``mu * -log(e^(s(z, z_glob) / tau) / (e^(s(z, z_glob) / tau) + e^(s(z, z_prev) / tau)))``, where
    ``z`` is what enters the last layer and ``s`` the cosine similarity. In a site's first round
    there is no previous model and the term has no gradient.
    """

    def __init__(self, start: LocalStart) -> None:
        self._network = start.network
        self._layout = start.layout
        self._options = start.plan.options
        self._features: _Features | None = None
        previous = under(_PREVIOUS, start.memory)
        if previous:
            self._features = _Features(start.network)
            self._global = _Features(_frozen(start.network, start.parameters))
            before = {**start.parameters, **previous}
            self._previous = _Features(_frozen(start.network, before))

    def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
        """Return the loss plus the contrastive term, a scalar."""
        if self._features is None:
            return loss
        features = self._features.latest
        similarities = [
            F.cosine_similarity(features, frozen.of(batch), dim=1)
            for frozen in (self._global, self._previous)
        ]
        scores = torch.stack(similarities, dim=1) / self._options.contrastive_temperature
        received = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
        return loss + self._options.contrastive_weight * F.cross_entropy(scores, received)

    def correct(self) -> None:
        """Leave the gradients as they are."""

    def memory(self) -> Parameters:
        """Return the trained model, the next round's previous one."""
        if self._features is not None:
            self._features.close()
        return prefixed(_PREVIOUS, self._layout.mutable_part(read_parameters(self._network)))

    def auxiliary(self) -> Parameters:
        """Return nothing."""
        return {}


class _Features:
    """What enters a network's last layer, ``(B, D)`` float32."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self.latest = torch.empty(0)
        self._hook = head_layer(network).register_forward_pre_hook(self._keep)

    def of(self, batch: Batch) -> Tensor:
        """Return the features of a batch, without gradient."""
        with torch.no_grad():
            self._network(*batch.inputs)
        return self.latest

    def close(self) -> None:
        """Stop looking."""
        self._hook.remove()

    def _keep(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.latest = inputs[0].flatten(1).float()


def _frozen(network: nn.Module, parameters: Parameters) -> nn.Module:
    frozen = copy.deepcopy(network)
    for layer in frozen.modules():
        layer._forward_pre_hooks.clear()
    write_parameters(frozen, parameters)
    return frozen.requires_grad_(False).eval()
