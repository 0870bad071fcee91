"""What a simulation tells whoever watches it: the progress bar, the log, a test."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A part of the work begins.

    Attributes:
        stage: ``data``, ``federated``, ``local-SITE``, ``pooled``, ``test`` or ``report``.
        rounds: How many rounds it has; 0 where it has none.
    """

    stage: str
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class StageFinished:
    """A part of the work is done."""

    stage: str


@dataclass(frozen=True, slots=True)
class RoundDone:
    """A round was committed.

    Attributes:
        value: The study's metric of the model that the round started from; NaN if not measured.
    """

    stage: str
    round: int
    rounds: int
    metric: str
    value: float
    updates: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SiteFailed:
    """A site did not contribute to a round."""

    stage: str
    round: int
    site: str
    reason: str


Event = StageStarted | StageFinished | RoundDone | SiteFailed
Watch = Callable[[Event], None]


def nobody(event: Event) -> None:
    """Watch nothing."""
