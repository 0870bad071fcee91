"""Which week of the year has what: the same story for 52 weeks, or for fewer."""

from dataclasses import dataclass
from datetime import UTC, datetime

LEAST_WEEKS = 8


@dataclass(frozen=True, slots=True)
class Calendar:
    """The weeks of a year, counted from 1.

    Attributes:
        year: Of the periods' names; it is over, so that each week can be looked at.
        scanner: From this week on the hospital's images come from another scanner.
        readers: Readers look at chosen cases, after the alarm.
        second: The study that goes on with images of the new scanner.
        third: The one after it, in which another hospital joins.
        leaving: That hospital leaves again.
    """

    weeks: int
    year: int
    scanner: int
    readers: int
    second: int
    third: int
    leaving: int

    def period(self, week: int) -> str:
        """Return a week as the monitoring names it."""
        return f"{self.year}-W{week:02d}"


def calendar_of(weeks: int) -> Calendar:
    """Return the story spread over some weeks.

    Args:
        weeks: 8 to 52.
    """
    scanner = max(2, round(0.27 * weeks))
    second = scanner + 3 + round(0.06 * weeks) - (weeks < 16)
    third = max(second + 1, round(0.65 * weeks))
    return Calendar(
        weeks=weeks,
        year=datetime.now(UTC).year - 1,
        scanner=scanner,
        readers=scanner + 2,
        second=max(second, scanner + 3),
        third=max(third, scanner + 4),
        leaving=max(third + 1, scanner + 5, round(0.83 * weeks)),
    )
