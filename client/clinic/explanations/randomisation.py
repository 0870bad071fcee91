"""Whether a map depends on what the network has learnt (Adebayo 2018, sanity checks).

A map that stays the same when the network's weights are replaced by random ones shows edges of the
image and not what the network has learnt. The last layer alone is drawn anew, several times, and
layers are drawn anew from the last one downwards until none is left.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import nn

from wardround.client.clinic.explanations.attribution import (
    ExplanationError,
    Floats,
    Inputs,
    Method,
    working_copy,
)
from wardround.client.clinic.explanations.layers import ran_layers
from wardround.client.clinic.explanations.likeness import rank_correlation

MOST_ALIKE = 0.3
"""Rank correlation from which a map counts as unchanged by random weights."""
_DRAWS = 3  # of the last layer: one draw may fall near the learnt one
_CASCADE = (0.25, 0.5, 1.0)  # of the layers, from the last one down
_BESIDE = ("covariate_layer", "covariate_network", "tokens")  # what no image passes
_NORMALISATIONS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
)


@dataclass(frozen=True, slots=True)
class Randomisation:
    """Rank correlations of a map with those of the same network with random weights.

    Attributes:
        last_layer: Mean over draws of the last layer alone.
        cascade: After a quarter, a half and all of the layers were drawn anew, from the last down.
    """

    last_layer: float
    cascade: tuple[float, ...]

    @property
    def passed(self) -> bool:
        """Whether the map changes when what was learnt is gone."""
        return self.last_layer < MOST_ALIKE and self.cascade[-1] < MOST_ALIKE


def randomise(
    method: Method,
    network: nn.Module,
    inputs: Inputs,
    class_index: int,
    shown: Floats,
    seed: int = 0,
) -> Randomisation:
    """Hold a map against those of the same network with random weights.

    Args:
        method: Made the map.
        network: Its numbers stay as they are.
        shown: ``(*spatial)``: the map, or ``(F,)``, as it is shown.
        seed: Of the random weights.
    """
    layers = learnt_layers(network, inputs)

    def like(count: int, draw: int) -> float:
        other = with_random_layers(network, layers[len(layers) - count :], seed * 1009 + draw)
        try:
            found = method(other, inputs, class_index)
        except ExplanationError:  # no map at all is not the same map
            return 0.0
        return rank_correlation(shown, found.positive if shown.min() >= 0 else found.values)

    last = float(np.mean([like(1, draw) for draw in range(_DRAWS)]))
    counts = [ceil(share * len(layers)) for share in _CASCADE]
    return Randomisation(last, tuple(like(n, _DRAWS + k) for k, n in enumerate(counts)))


def learnt_layers(network: nn.Module, inputs: Inputs) -> list[str]:
    """Return the names of the layers with numbers of their own, in the order they work in.

    Of a network of an image and clinical values only the image's part counts.
    """
    return [
        layer.name
        for layer in ran_layers(working_copy(network), inputs)
        if _own(network.get_submodule(layer.name))
        and not (len(inputs) > 1 and any(part in layer.name.split(".") for part in _BESIDE))
    ]


def with_random_layers(network: nn.Module, names: list[str], seed: int) -> nn.Module:
    """Return a copy of a network in which some layers have random numbers.

    A convolution or linear layer is initialised anew. What has no initialisation, and a scale of a
    normalisation, whose first values are all equal, has its numbers shuffled.
    """
    copy = working_copy(network)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        for name in names:
            layer = copy.get_submodule(name)
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset) and not isinstance(layer, _NORMALISATIONS):
                reset()
                continue
            for weight in _own(layer):
                order = torch.randperm(weight.numel())
                weight.copy_(weight.flatten()[order].reshape(weight.shape))
    return copy


def _own(layer: nn.Module) -> list[nn.Parameter]:
    return list(layer.parameters(recurse=False))
