"""What is known of a simulation while it runs: typed facts, and how an event changes them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from wardround.common.runtime.printable import printable
from wardround.simulations.run_files.events import title_of
from wardround.simulations.run_files.folder import ALL_SITES

Standing = Literal[
    "beginning", "running", "finished", "interrupted", "failed", "not begun", "nothing"
]
MOST_HAPPENINGS = 100
TOGETHER = (ALL_SITES, "mean of sites")  # the second where sites send numbers, which do not merge
_TYPICAL_ROUNDS = 5  # as many of the last ones tell how long the next will take


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the work.

    Attributes:
        rounds: 0 where it has none.
        began, ended: By the clock, in seconds since 1970; None where it has not.
        value: The study's metric as it was last measured; NaN if not.
    """

    name: str
    rounds: int = 0
    done: int = 0
    began: float | None = None
    ended: float | None = None
    metric: str = ""
    value: float = math.nan

    @property
    def title(self) -> str:
        """How a person calls it."""
        return printable(title_of(self.name))


@dataclass(frozen=True, slots=True)
class RoundLine:
    """A federated round.

    Attributes:
        value: The study's metric of the model that it began with, on validation patients.
        ended: When it was committed; None where the log does not say.
    """

    round: int
    value: float
    seconds: float
    sites: int
    updates: int
    bytes: int
    left_out: tuple[str, ...]
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class SiteLine:
    """A site's part in the federated rounds.

    Attributes:
        rounds: In how many it took part.
        last: The last of them; 0 for none.
        loss: Its training loss in that; NaN where it is not known.
        seconds: Its own time in that.
        left_out: The last round that was without it, and why; 0 and "" for none.
    """

    site: str
    rounds: int = 0
    last: int = 0
    updates: int = 0
    loss: float = math.nan
    seconds: float = math.nan
    bytes_down: int = 0
    bytes_up: int = 0
    left_out: tuple[int, str] = (0, "")


@dataclass(frozen=True, slots=True)
class Happening:
    """A line of what happened."""

    time: float
    words: str
    is_trouble: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run says.

    Attributes:
        tone: "good", "bad" or "neutral".
        sites: A hospital's own, federated and pooled value, its gain, and the word for that.
        report: Whether the report is there.
    """

    sentence: str
    details: tuple[str, ...] = ()
    tone: str = "neutral"
    metric: str = ""
    sites: tuple[tuple[str, str, str, str, str, str], ...] = ()
    report: bool = False


@dataclass(frozen=True, slots=True)
class RunState:
    """A simulation as its folder tells it.

    Attributes:
        study: Its name; "" before it is written down.
        metric: What is measured in each round.
        values: For each name (a site, or all sites) the metric by the round that was measured.
        losses: For each site its training loss by round.
        privacy: What is promised, and spent so far, in sentences; empty without privacy.
        seen: When the log was last written.
    """

    study: str = ""
    metric: str = ""
    rounds_planned: int = 0
    standing: Standing = "beginning"
    known_sites: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    rounds: tuple[RoundLine, ...] = ()
    sites: tuple[SiteLine, ...] = ()
    values: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    losses: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    happenings: tuple[Happening, ...] = ()
    happened: int = 0
    privacy: tuple[str, ...] = ()
    outcome: Outcome | None = None
    seen: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it by itself."""
        if self.standing == "finished":  # which is written down before the report is
            return self.outcome is not None
        return self.standing in ("interrupted", "failed", "nothing")

    @property
    def running(self) -> tuple[Stage, ...]:
        """The stages that have begun and not ended."""
        return tuple(one for one in self.stages if one.ended is None)

    @property
    def round_seconds(self) -> float:
        """How long a federated round takes of late; NaN before the first."""
        last = sorted(one.seconds for one in self.rounds[-_TYPICAL_ROUNDS:])
        return last[len(last) // 2] if last else math.nan

    @property
    def rounds_end(self) -> float:
        """When the last federated round is expected to end; NaN where it cannot be said."""
        if not self.rounds or self.is_over or self.rounds[-1].ended is None:
            return math.nan
        left = self.rounds_planned - self.rounds[-1].round
        return self.rounds[-1].ended + left * self.round_seconds if left > 0 else math.nan


@dataclass(frozen=True, slots=True)
class Series:
    """Several runs of one study.

    Attributes:
        runs: By name, in their order.
        shown: The name of the run that is looked at closely.
    """

    study: str
    standing: Standing
    runs: tuple[tuple[str, RunState], ...]
    shown: str = ""
    outcome: Outcome | None = None
