"""The learning rate as a function of how far a study is: the same at every site and the server."""

import math
from collections.abc import Callable

from wardround.common.study.sections.training import TrainingSection

_POWER = 0.9  # Chen et al. 2017 (DeepLab), and nnU-Net after it


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


# The factor of the learning rate after a fraction of the study, both in [0, 1].
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "polynomial": lambda done: float((1 - done) ** _POWER),
    "step": lambda done: 0.1 ** ((done >= 1 / 2) + (done >= 3 / 4)),
}
