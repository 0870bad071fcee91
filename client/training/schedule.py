"""The steps of a round: which examinations form each, where it lies in the study, its precision.

And how long they may take: that is asked before each batch, so that one in flight stops. And what
is said where they take more memory than there is.
"""

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from wardround.common.errors import RunError
from wardround.common.study.sections.training import TrainingSection

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_Item = TypeVar("_Item")
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")
_MEMORY_IS_FULL = ("out of memory", "can't allocate memory", "_STATUS_ALLOC_FAILED")
_SECONDS_A_MINUTE = 60
FEW_STEPS = 5  # in a round


@dataclass(frozen=True, slots=True)
class SchedulePosition:
    """Where a round lies in the study, as fractions in [0, 1]: schedules depend on nothing else."""

    begin: float
    end: float
    steps: int

    @classmethod
    def of_round(cls, number: int, rounds: int, steps: int) -> "SchedulePosition":
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


def steps_a_round(examinations: int, training: TrainingSection) -> int:
    """Return how many optimiser steps a site makes in a round."""
    if training.local_steps is not None:
        return training.local_steps
    batches = -(-examinations // training.batch_size)
    return batches * (training.local_epochs or 1)


def few_steps_note(examinations: int, training: TrainingSection) -> tuple[str, ...]:
    """Return a sentence where a site makes so few steps a round that the training swings.

    The optimiser begins anew in each round, and the first steps of Adam all have the size of the
    learning rate, whatever the gradient (Kingma and Ba 2015, section 2.1).
    """
    steps = steps_a_round(examinations, training)
    if steps >= FEW_STEPS or training.optimiser == "sgd":
        return ()
    return (
        f"{steps} steps a round: with fewer than {FEW_STEPS} the training swings, since "
        f"{training.optimiser} begins anew in each round. Set training.local_steps = 10, or a "
        "lower training.learning_rate",
    )


def draw_batches(
    targets: Tensor, training: TrainingSection, generator: torch.Generator, fewest: int = 1
) -> Iterator[Tensor]:
    """Yield the examination indices, int64, of each step of one round.

    Every epoch is a new permutation. With ``sampling = "balanced"`` examinations are drawn with
    replacement so that each class that is present is equally likely. A last batch of fewer than
    ``fewest`` takes the first examination of the epoch once more.

    Args:
        targets: ``(N,)`` class indices; only its length counts unless sampling is balanced.
        generator: The only source of randomness.
        fewest: How many examinations a step needs; no more than a batch holds.
    """
    remaining = steps_a_round(len(targets), training)
    while remaining > 0:
        order = _order(targets, training, generator)
        for start in range(0, len(order), training.batch_size)[:remaining]:
            remaining -= 1
            batch = order[start : start + training.batch_size]
            missing = fewest - len(batch)
            yield batch if missing <= 0 else torch.cat([batch, order[:1].expand(missing)])


def _order(targets: Tensor, training: TrainingSection, generator: torch.Generator) -> Tensor:
    count = len(targets)
    if training.sampling == "shuffle":
        return torch.randperm(count, generator=generator)
    frequency = torch.bincount(targets).double()
    return torch.multinomial(1.0 / frequency[targets], count, replacement=True, generator=generator)


class FullMemoryError(RunError):
    """The memory of the GPU, or of the machine, is full."""


class OvertimeError(RunError):
    """The time is over; what was trained so far is let go."""


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """When a training has to be over, by this machine's monotonic clock.

    Attributes:
        until: Infinite where nothing is said.
    """

    until: float = math.inf

    @classmethod
    def of_minutes(cls, minutes: float | None) -> "TimeLimit":
        """Return the limit that begins now; None limits nothing."""
        if minutes is None:
            return UNLIMITED
        return cls(time.monotonic() + minutes * _SECONDS_A_MINUTE)

    def check(self) -> None:
        """Check that there is time left.

        Raises:
            OvertimeError: There is none.
        """
        if time.monotonic() > self.until:
            msg = "the training took longer than it may: ask for fewer steps, or allow more time."
            raise OvertimeError(msg)

    def each(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Yield items as long as there is time.

        Raises:
            OvertimeError: There was none left at one of them.
        """
        for item in items:
            self.check()
            yield item


UNLIMITED = TimeLimit()


def names_memory_remedy(
    work: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
    """Return the work; where it runs out of memory it says what makes it smaller.

    Raises:
        FullMemoryError: The memory of the GPU, or of the machine, is full.
    """

    @functools.wraps(work)
    def wrapped(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        try:
            return work(*args, **kwargs)
        except (RuntimeError, MemoryError) as error:
            remedy = _memory_remedy(error)
            if remedy is None:
                raise
        # Outside: the error holds on to everything that was in memory.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        raise FullMemoryError(remedy)

    return wrapped


def _memory_remedy(error: Exception) -> str | None:
    """Return what to say of an error; None if it is not about memory."""
    smaller = (
        "lower training.batch_size, training.patch_size or data.size in the study (with privacy "
        "privacy.microbatch, which changes no result)"
    )
    if isinstance(error, torch.OutOfMemoryError) or "CUDA" in str(error):
        if not isinstance(error, torch.OutOfMemoryError) and not is_full(error):
            return None
        return (
            f"the memory of the GPU is full: {smaller}, or set training.precision = 'bfloat16'. "
            "Look with nvidia-smi whether another process uses the same GPU; device = 'cpu' in "
            "site.toml does without one."
        )
    if isinstance(error, MemoryError) or is_full(error):
        return (
            "the memory of this machine is full: set cache_place = 'disk' or lower "
            f"cache_gigabytes in site.toml, or {smaller}."
        )
    return None


def is_full(error: Exception) -> bool:
    """Return whether an error says that there is no more memory."""
    return any(words in str(error) for words in _MEMORY_IS_FULL)
