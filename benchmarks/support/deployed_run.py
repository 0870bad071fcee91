"""What is measured of a federation of real processes, whoever made it."""

import statistics
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.support.live_processes import Usage


@dataclass(frozen=True)
class DeployedRun:
    """One run of one federation, from nothing to its end.

    Attributes:
        started_at: When the first process was started, in seconds since 1970.
        ended_rounds: When each round's model was there, from the first round on.
        failure: Why it did not come to its end; empty if it did.
    """

    started_at: float
    ended_rounds: tuple[float, ...]
    usage: Usage
    failure: str = ""

    @property
    def round_seconds(self) -> list[float]:
        """The time of each round but the first, which waits for the sites."""
        return [after - before for before, after in pairwise(self.ended_rounds)]

    @property
    def cpu_seconds(self) -> list[float]:
        """What all processes together computed in each round but the first."""
        return self.usage.cpu_seconds(self.ended_rounds)

    @property
    def start_up_seconds(self) -> float:
        """From nothing to the end of the first round, less a usual round."""
        return self.ended_rounds[0] - self.started_at - statistics.median(self.round_seconds)
