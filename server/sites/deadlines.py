"""How long the server waits for a site: as the study says, or as earlier rounds teach."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from wardround.server.checkpoints.history import RoundRecord
from wardround.server.settings import ServerFile
from wardround.server.sites.exchange import ABSENCE_SECONDS, NO_ANSWER, NOT_CONNECTED

TIMES_THE_LONGEST = 4.0  # room for a machine that is shared for a while


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server says where a study sets no deadline.

    Attributes:
        first_seconds: For a reply, until a round has shown how long they take; never more.
        least_seconds: For a reply, afterwards; never less.
        absence_seconds: For a site whose connection is gone.
    """

    first_seconds: float
    least_seconds: float
    absence_seconds: float = ABSENCE_SECONDS


def limits_of(settings: ServerFile) -> Limits:
    """Return the limits of a server."""
    return Limits(
        settings.first_deadline_seconds,
        settings.least_deadline_seconds,
        settings.absence_seconds,
    )


class Deadlines:
    """How long a run waits for its sites; what it has learnt is in the run's history.

    A simulation has no limits of a server: it waits as its study says, or without end.
    """

    def __init__(self, study_seconds: float | None = None, limits: Limits | None = None) -> None:
        """Begin without experience.

        Args:
            study_seconds: The study's ``federation.deadline_seconds``.
            limits: What holds where that is None.
        """
        self._study_seconds = study_seconds
        self._limits = None if study_seconds is not None else limits
        self._longest = 0.0

    @property
    def deadline_seconds(self) -> float | None:
        """How long a reply is waited for; None is without end."""
        limits = self._limits
        if limits is None:
            return self._study_seconds
        if not self._longest:
            return limits.first_seconds
        usual = max(limits.least_seconds, TIMES_THE_LONGEST * self._longest)
        return min(limits.first_seconds, usual)

    @property
    def absence_seconds(self) -> float:
        """How long a site that is not connected is waited for, within the deadline."""
        if self._limits is not None:
            return self._limits.absence_seconds
        return ABSENCE_SECONDS if self._study_seconds is None else math.inf

    def learn(self, records: Iterable[RoundRecord]) -> None:
        """Take rounds as a measure, unless they ended with waiting for a site in vain."""
        for record in records:
            in_vain = any(one.reason in (NO_ANSWER, NOT_CONNECTED) for one in record.refusals)
            if record.sites and not in_vain:
                self._longest = max(self._longest, record.seconds)

    def learn_late(self, seconds: float) -> None:
        """Note how long a reply took that came too late: the site is slow, and not stuck."""
        self._longest = max(self._longest, seconds)

    def words(self) -> str:
        """Return, for operators, how long a round waits and why."""
        deadline = self.deadline_seconds
        if self._limits is None:
            if deadline is None:
                return "a round waits for every site"
            return f"a round waits {deadline:.0f} s for an answer (the study's deadline)"
        reason = (
            f"{TIMES_THE_LONGEST:g} times its longest round, within the limits of server.toml"
            if self._longest
            else "first_deadline_seconds in server.toml, until a round is complete"
        )
        return (
            f"a round waits {deadline:.0f} s for an answer ({reason}; the study sets no "
            f"deadline), and {self.absence_seconds:.0f} s for a site that is not connected"
        )
