"""One key of a planned study, with what it comes from."""

from dataclasses import dataclass

from wardround.common.study.sections.combat import CombatSection

Value = None | str | int | float | tuple[float, ...] | tuple[int, ...] | CombatSection


@dataclass(frozen=True, slots=True)
class PlannedValue:
    """One key of the planned study.

    Attributes:
        key: Dotted, e.g. "data.spacing".
        value: None takes the key out.
        reason: What it comes from, in a sentence or two.
    """

    key: str
    value: Value
    reason: str
