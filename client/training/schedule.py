"""Where a round's work lies in the study, and at what precision it is done."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from wardround.common.study.sections import TrainingSection

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


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
