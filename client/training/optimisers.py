"""The optimiser of one site, and the mean of the networks that its steps come by.

Each optimiser is the fused one. Measured on one CPU core, a step of Adam takes 39 µs instead of
117 µs (6 tensors, 19 k numbers) and 165 µs instead of 684 µs (37 tensors, 152 k numbers); momentum
SGD 20 instead of 41 and 64 instead of 223. ``foreach=True`` lies between.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wardround.common.errors import StudyError, known_names
from wardround.common.runtime import eager_optimisers
from wardround.common.study.sections.training import TrainingSection


def build_optimiser(network: nn.Module, training: TrainingSection) -> torch.optim.Optimizer:
    """Return a new optimiser over the network's trainable parameters.

    Raises:
        StudyError: The optimiser is unknown.
    """
    if training.optimiser not in OPTIMISERS:
        raise StudyError(known_names("optimiser", training.optimiser, OPTIMISERS))
    return OPTIMISERS[training.optimiser](network, training)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Have an optimiser's next step go at a learning rate, in all its groups."""
    for group in optimiser.param_groups:
        group["lr"] = rate


def _sgd(network: nn.Module, training: TrainingSection) -> torch.optim.Optimizer:
    return eager_optimisers.SGD(
        _trainable(network),
        lr=training.learning_rate,
        momentum=training.momentum,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay,
        fused=True,
    )


def _adam(network: nn.Module, training: TrainingSection) -> torch.optim.Optimizer:
    return eager_optimisers.Adam(
        _trainable(network),
        lr=training.learning_rate,
        weight_decay=training.weight_decay,
        fused=True,
    )


def _adamw(network: nn.Module, training: TrainingSection) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019); scales, shifts and biases are not decayed."""
    trainable = _trainable(network)
    groups = [
        {
            "params": [parameter for parameter in trainable if parameter.ndim > 1],
            "weight_decay": training.weight_decay,
        },
        {
            "params": [parameter for parameter in trainable if parameter.ndim <= 1],
            "weight_decay": 0.0,
        },
    ]
    return eager_optimisers.AdamW(groups, lr=training.learning_rate, fused=True)


OPTIMISERS: dict[str, Callable[[nn.Module, TrainingSection], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}


def _trainable(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


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
