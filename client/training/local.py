"""The local step: one hospital, one round."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.training.optimisers import learning_rate_at
from wardround.common.errors import RunError
from wardround.common.study_sections import TrainingSection

Loss = Callable[[Tensor, Tensor], Tensor]
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class LocalWork:
    """What one round of training came to.

    Attributes:
        updates: Optimiser steps made.
        mean_loss: Mean of the batch losses.
    """

    updates: int
    mean_loss: float


@dataclass(frozen=True, slots=True)
class Span:
    """Where a round lies in the study, as fractions in [0, 1]: schedules depend on nothing else."""

    begin: float
    end: float
    steps: int

    @classmethod
    def of_round(cls, number: int, rounds: int, steps: int) -> "Span":
        """Return the span of round ``number`` (the first is 1), which has ``steps`` steps."""
        return cls((number - 1) / rounds, number / rounds, steps)

    def at(self, step: int) -> float:
        """Return the progress of the study before a step (the first is 0)."""
        return self.begin + (self.end - self.begin) * step / self.steps


def mixed_precision(
    training: TrainingSection, device: torch.device
) -> AbstractContextManager[object]:
    """Return the autocast region that the study asks for."""
    if training.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[training.precision])


def train_locally(
    network: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    training: TrainingSection,
    span: Span,
) -> LocalWork:
    """Train in place over the batches, which lie on the network's device.

    Raises:
        RunError: The loss is no longer a number.
    """
    device = next(network.parameters()).device
    scaler = torch.amp.GradScaler(device.type, enabled=training.precision == "float16")
    network.train()
    total = torch.zeros((), device=device)
    done = 0
    for batch in batches:
        rate = learning_rate_at(training, span.at(done))
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        with mixed_precision(training, device):
            value = loss(network(*batch.inputs), batch.targets)
        scaler.scale(value).backward()  # type: ignore[no-untyped-call] # torch's own
        if training.gradient_clip is not None:
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(network.parameters(), training.gradient_clip)
        scaler.step(optimiser)
        scaler.update()
        total += value.detach()
        done += 1
    mean_loss = float(total) / max(done, 1)
    if mean_loss != mean_loss or mean_loss in (float("inf"), float("-inf")):
        msg = (
            f"the training loss is {mean_loss} after {done} steps: "
            "lower training.learning_rate or set training.gradient_clip."
        )
        raise RunError(msg)
    return LocalWork(done, mean_loss)
