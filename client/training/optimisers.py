"""The optimiser of one site, and the learning rate as a function of how far the study is.

Each optimiser is the fused one. Measured on one CPU core, a step of Adam takes 39 µs instead of
117 µs (6 tensors, 19 k numbers) and 165 µs instead of 684 µs (37 tensors, 152 k numbers); momentum
SGD 20 instead of 41 and 64 instead of 223. ``foreach=True`` lies between.
"""

import math
from collections.abc import Callable

import torch
from torch import nn

from wardround.common.errors import StudyError, known_names
from wardround.common.runtime import eager_optimisers
from wardround.common.study.sections.training import TrainingSection

_POWER = 0.9  # Chen et al. 2017 (DeepLab), and nnU-Net after it


def build_optimiser(network: nn.Module, training: TrainingSection) -> torch.optim.Optimizer:
    """Return a new optimiser over the network's trainable parameters.

    Raises:
        StudyError: The optimiser is unknown.
    """
    if training.optimiser not in OPTIMISERS:
        raise StudyError(known_names("optimiser", training.optimiser, OPTIMISERS))
    return OPTIMISERS[training.optimiser](network, training)


def learning_rate_at(training: TrainingSection, progress: float) -> float:
    """Return the learning rate at a point of the study.

    It rises in a straight line through the ``warmup`` fraction, then follows the schedule. Since it
    depends on nothing else, a site that missed a round, or joined late, is where the others are.

    Args:
        training: Says the schedule.
        progress: Fraction of the whole study that is done, in [0, 1].
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < training.warmup:
        return training.learning_rate * progress / training.warmup
    rest = 1 - training.warmup
    done = (progress - training.warmup) / rest if rest > 0 else 1.0
    return training.learning_rate * SCHEDULES[training.schedule](done)


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

# The factor of the learning rate after a fraction of the study, both in [0, 1].
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "polynomial": lambda done: float((1 - done) ** _POWER),
    "step": lambda done: 0.1 ** ((done >= 1 / 2) + (done >= 3 / 4)),
}


def _trainable(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]
