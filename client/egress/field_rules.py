"""What one field of a message may hold: a closed set, or a number of few digits.

A type must match exactly: a subclass could compare as one thing and be sent as another.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exactly:
    """One value, known before the site has said anything."""

    value: str | int | float

    def allows(self, given: object) -> bool:
        """Return whether a field may hold this."""
        return type(given) is type(self.value) and given == self.value


@dataclass(frozen=True, slots=True)
class OneOf:
    """One word of a closed set."""

    words: tuple[str, ...]

    def allows(self, given: object) -> bool:
        """Return whether a field may hold this."""
        return type(given) is str and given in self.words


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number, rounded to a multiple."""

    multiple: int = 1
    least: int = 0
    most: int = 10**9

    def allows(self, given: object) -> bool:
        """Return whether a field may hold this."""
        if type(given) is not int:
            return False
        return self.least <= given <= self.most and given % self.multiple == 0


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number, rounded to decimals; not rounded where there are None.

    Attributes:
        decimals: Negative for tens, hundreds ...
    """

    decimals: int | None
    least: float = -1e9
    most: float = 1e9

    def allows(self, given: object) -> bool:
        """Return whether a field may hold this."""
        if type(given) is not float or not math.isfinite(given):
            return False
        rounded = given if self.decimals is None else round(given, self.decimals)
        return self.least <= given <= self.most and rounded == given


@dataclass(frozen=True, slots=True)
class FreeText:
    """Anything written: in a simulation only."""

    def allows(self, given: object) -> bool:
        """Return whether a field may hold this."""
        texts = given if isinstance(given, list) else [given]
        return all(isinstance(text, str) for text in texts)


@dataclass(frozen=True, slots=True)
class Empty:
    """A list of nothing."""

    def allows(self, given: object) -> bool:
        """Return whether a field may hold this."""
        return isinstance(given, list) and not given


Rule = Exactly | OneOf | Count | Number | FreeText | Empty
