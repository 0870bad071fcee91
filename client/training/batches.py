"""Which examinations form which step: drawn from a generator of its own, site and round."""

from collections.abc import Iterator

import torch
from torch import Tensor

from wardround.common.study.sections import TrainingSection


def steps_a_round(examinations: int, training: TrainingSection) -> int:
    """Return how many optimiser steps a site makes in a round."""
    if training.local_steps is not None:
        return training.local_steps
    batches = -(-examinations // training.batch_size)
    return batches * (training.local_epochs or 1)


def draw_batches(
    targets: Tensor, training: TrainingSection, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield the examination indices, int64, of each step of one round.

    Every epoch is a new permutation. With ``sampling = "balanced"`` examinations are drawn with
    replacement so that each class that is present is equally likely.

    Args:
        targets: ``(N,)`` class indices; only its length counts unless sampling is balanced.
        generator: The only source of randomness.
    """
    remaining = steps_a_round(len(targets), training)
    while remaining > 0:
        order = _order(targets, training, generator)
        for start in range(0, len(order), training.batch_size)[:remaining]:
            remaining -= 1
            yield order[start : start + training.batch_size]


def _order(targets: Tensor, training: TrainingSection, generator: torch.Generator) -> Tensor:
    count = len(targets)
    if training.sampling == "shuffle":
        return torch.randperm(count, generator=generator)
    frequency = torch.bincount(targets).double()
    return torch.multinomial(1.0 / frequency[targets], count, replacement=True, generator=generator)
