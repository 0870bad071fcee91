"""What happened in the year, for the report and for whoever checks it."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["model", "scanner", "alarm", "readers", "hospital"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a week."""

    week: int
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Week:
    """One week of the hospital that is followed.

    Attributes:
        model: The one in use.
        auroc: Of that model on the week's patients, once their labels are known.
        verdict: Of the monitoring: quiet, notice, alarm.
    """

    number: int
    model: str
    scanner: str
    images: int
    auroc: float
    accuracy: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Expectation:
    """What had to be so."""

    text: str
    is_met: bool


@dataclass
class Diary:
    """The year as it goes.

    Attributes:
        facts: Names and numbers of the year as a whole, for the report.
        left: What left the hospital: the run, the kind of message, how many, bytes.
    """

    weeks: list[Week] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    expectations: list[Expectation] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    left: list[tuple[str, str, int, int]] = field(default_factory=list)

    def tell(self, week: int, kind: Kind, text: str) -> None:
        """Write down what happened."""
        self.events.append(Event(week, kind, text))

    def expect(self, text: str, is_met: bool) -> None:
        """Write down what had to be so, and whether it was."""
        self.expectations.append(Expectation(text, is_met))

    @property
    def unmet(self) -> list[str]:
        """What had to be so and was not."""
        return [one.text for one in self.expectations if not one.is_met]

    def as_json(self) -> dict[str, Any]:
        """Return it as data; what is not known is null."""
        content = asdict(self)
        for week in content["weeks"]:
            for name in ("auroc", "accuracy"):
                week[name] = week[name] if week[name] == week[name] else None
        names = ("run", "kind", "messages", "bytes")
        content["left"] = [dict(zip(names, row, strict=True)) for row in self.left]
        return content
