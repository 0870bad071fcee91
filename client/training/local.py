"""The local step: one hospital, one round."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from wardround.client.data.batch import Batch
from wardround.client.training.objectives.base import LocalStart, Objective
from wardround.client.training.optimisers import mean_weights, set_learning_rate
from wardround.client.training.schedule import mixed_precision
from wardround.common.errors import RunError
from wardround.common.study.plans.learning_rate import learning_rate_at
from wardround.common.study.sections.training import TrainingSection


@dataclass(frozen=True, slots=True)
class LocalWork:
    """What one round of training came to.

    Attributes:
        updates: Optimiser steps made; each changed the network.
        mean_loss: Mean of the batch losses.
        seconds_ahead: What of it was done before the site was asked, together with others.
    """

    updates: int
    mean_loss: float
    seconds_ahead: float = 0.0


LARGEST_LOSS = 1e9  # no training comes back from it, and no message carries it
_LEAST_SCALE = 1.0  # below it a loss is no longer scaled up


def loss_scaler(training: TrainingSection, device: torch.device) -> GradScaler:
    """Return what scales the losses of a run, and does nothing but for float16.

    Small gradients would be zero in float16, so the loss is scaled up (Micikevicius et al. 2018).
    It learns the scale, and so lasts for all rounds of a run.
    """
    return GradScaler(device.type, enabled=training.precision == "float16")


def train_locally(
    start: LocalStart,
    batches: Iterable[Batch],
    optimiser: torch.optim.Optimizer,
    objective: Objective | None = None,
    scaler: GradScaler | None = None,
    forward: Callable[..., Any] | None = None,
) -> LocalWork:
    """Train the start's network in place over the batches, which lie on its device.

    Args:
        objective: What is asked for beside the loss; None costs nothing a step.
        scaler: From :func:`loss_scaler`, as the run's last round left it; None begins anew.
        forward: Runs the network, for a site that does so with several processes; None for the
            network itself.

    Raises:
        RunError: The loss is no longer a number, or a gradient is too large for float16.
        OvertimeError: The start's time limit has passed.
    """
    network, loss, training, position = start.network, start.loss, start.training, start.position
    device = next(network.parameters()).device
    scaler = loss_scaler(training, device) if scaler is None else scaler
    network.train()
    run = network if forward is None else forward
    total = torch.zeros((), device=device)
    done, mean = 0, mean_weights(network, training.ema)
    for batch in start.limit.each(batches):
        rate = learning_rate_at(training, position.at(done))
        set_learning_rate(optimiser, rate)
        optimiser.zero_grad(set_to_none=True)
        with mixed_precision(training, device):
            value = loss(run(*batch.inputs), batch.targets)
            whole = value if objective is None else objective.adjust(value, batch)
        _differentiate(whole, optimiser, scaler)
        if objective is not None:
            objective.correct()
        if training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), training.gradient_clip)
        scaler.step(optimiser)
        scaler.update()
        if mean is not None:
            mean.take()
        total += value.detach()
        done += 1
    if mean is not None:
        mean.write()
    mean_loss = float(total) / max(done, 1)
    if not abs(mean_loss) < LARGEST_LOSS:  # nor where it is no number
        msg = (
            f"the training loss is {mean_loss} after {done} steps: "
            "lower training.learning_rate or set training.gradient_clip."
        )
        raise RunError(msg)
    return LocalWork(done, mean_loss)


def _differentiate(loss: Tensor, optimiser: torch.optim.Optimizer, scaler: GradScaler) -> None:
    """Compute the gradients of a loss, unscaled.

    With a scale at which one overflows torch would skip the step: it would be counted, and change
    nothing. Here the scale is halved and the same loss differentiated again.

    Raises:
        RunError: One overflows at any scale.
    """
    if not scaler.is_enabled():
        loss.backward()  # type: ignore[no-untyped-call] # torch's own
        return
    while True:
        scaler.scale(loss).backward(retain_graph=True)  # type: ignore[no-untyped-call] # torch's own
        scaler.unscale_(optimiser)
        weights = (weight for group in optimiser.param_groups for weight in group["params"])
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        # Asked once for all of them: each question is a wait for the device.
        if bool(torch.stack([gradient.isfinite().all() for gradient in gradients]).all()):
            return
        if scaler.get_scale() <= _LEAST_SCALE:
            msg = (
                "a gradient is too large for float16, or the training loss is no number: set "
                "training.precision = 'bfloat16', lower training.learning_rate or set "
                "training.gradient_clip."
            )
            raise RunError(msg)
        scaler.update()  # halves the scale
        optimiser.zero_grad(set_to_none=True)
