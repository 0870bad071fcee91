"""The local step: one hospital, one round."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from wardround.client.data.batch import Batch
from wardround.client.training.objectives.base import LocalStart, Objective
from wardround.client.training.optimisers import learning_rate_at, set_learning_rate
from wardround.client.training.schedule import mixed_precision
from wardround.common.errors import RunError


@dataclass(frozen=True, slots=True)
class LocalWork:
    """What one round of training came to.

    Attributes:
        updates: Optimiser steps made.
        mean_loss: Mean of the batch losses.
    """

    updates: int
    mean_loss: float


_LARGEST_LOSS = 1e9  # no training comes back from it, and no message carries it


def train_locally(
    start: LocalStart,
    batches: Iterable[Batch],
    optimiser: torch.optim.Optimizer,
    objective: Objective | None = None,
) -> LocalWork:
    """Train the start's network in place over the batches, which lie on its device.

    Args:
        objective: What is asked for beside the loss; None costs nothing a step.

    Raises:
        RunError: The loss is no longer a number.
        OvertimeError: The start's time limit has passed.
    """
    network, loss, training, position = start.network, start.loss, start.training, start.position
    device = next(network.parameters()).device
    scaler = torch.amp.GradScaler(device.type, enabled=training.precision == "float16")
    unscaled = objective is not None or training.gradient_clip is not None
    network.train()
    total = torch.zeros((), device=device)
    done = 0
    for batch in start.limit.each(batches):
        rate = learning_rate_at(training, position.at(done))
        set_learning_rate(optimiser, rate)
        optimiser.zero_grad(set_to_none=True)
        with mixed_precision(training, device):
            value = loss(network(*batch.inputs), batch.targets)
            whole = value if objective is None else objective.adjust(value, batch)
        scaler.scale(whole).backward()  # type: ignore[no-untyped-call] # torch's own
        if unscaled:
            scaler.unscale_(optimiser)
        if objective is not None:
            objective.correct()
        if training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), training.gradient_clip)
        scaler.step(optimiser)
        scaler.update()
        total += value.detach()
        done += 1
    mean_loss = float(total) / max(done, 1)
    if not abs(mean_loss) < _LARGEST_LOSS:  # nor where it is no number
        msg = (
            f"the training loss is {mean_loss} after {done} steps: "
            "lower training.learning_rate or set training.gradient_clip."
        )
        raise RunError(msg)
    return LocalWork(done, mean_loss)
