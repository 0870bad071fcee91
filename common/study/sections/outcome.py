"""``[data.outcome]``: what a task without classes predicts."""

from typing import Annotated

from pydantic import Field, StringConstraints

from wardround.common.study.sections.fields import Measured, Name, Positive, Section


class OutcomeSection(Section):
    """``[data.outcome]``: what a task without classes predicts.

    Attributes:
        name: What it is, e.g. "age"; reports and predictions call it so.
        unit: Of what the column label says, e.g. "years"; "" where it has none.
        range: From where to where the number lies. A label outside is refused, and an estimate
            outside is cut to it: so one patient moves every sum by a bounded amount.
        mean: The network learns ``(number - mean) / scale``; the middle of the range if absent.
        scale: A quarter of the range if absent.
        times: Of a time to event: the upper ends of the intervals that its hazard is told for. The
            last is the horizon, at which follow-up ends.
    """

    name: Name = "outcome"
    unit: Annotated[str, StringConstraints(max_length=32)] = ""
    range: tuple[Measured, Measured] | None = None
    mean: Measured | None = None
    scale: Positive | None = None
    times: Annotated[tuple[Positive, ...], Field(max_length=100)] = ()

    @property
    def low(self) -> float:
        """The least number that a label may be."""
        return self.range[0] if self.range else 0.0

    @property
    def width(self) -> float:
        """From the least to the largest number."""
        return self.range[1] - self.range[0] if self.range else 1.0

    @property
    def centre(self) -> float:
        """What the network's 0 stands for."""
        return self.low + self.width / 2 if self.mean is None else self.mean

    @property
    def step(self) -> float:
        """What the network's 1 is above its 0."""
        return self.width / 4 if self.scale is None else self.scale

    def with_unit(self, value: float) -> str:
        """Return a number as a person reads it, four digits and the unit."""
        return f"{value:.4g} {self.unit}".rstrip()
