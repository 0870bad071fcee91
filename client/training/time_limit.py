"""How long a site's training may take: asked before each batch, so that one in flight stops."""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from wardround.common.errors import RunError

_Item = TypeVar("_Item")
_SECONDS_A_MINUTE = 60


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
