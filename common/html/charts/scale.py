"""Where a value lies on an axis, and the round numbers that stand beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

_LARGEST, _SMALLEST = 1e300, 1e-290  # beyond them, differences of values overflow or vanish
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_WHOLE_STEPS = (1.0, 2.0, 5.0, 10.0)
_MANTISSAS = (1.0, 2.0, 5.0)
# Values closer than this share of their size are drawn as equal: a tick between them would
# have more digits than a float holds.
_SMALLEST_SPREAD = 1e-9


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis: its value and how it is written."""

    value: float
    label: str


@dataclass(frozen=True, slots=True)
class LinearScale:
    """Equal differences are equally long."""

    low: float
    high: float
    ticks: tuple[Tick, ...]

    def place(self, value: float) -> float:
        """Return where a value lies."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True, slots=True)
class LogScale:
    """Equal ratios are equally long; every value is above 0."""

    low: float
    high: float
    ticks: tuple[Tick, ...]

    def place(self, value: float) -> float:
        """Return where a value lies."""
        low = math.log(self.low)  # differences: a ratio may be too large for a float
        return (math.log(value) - low) / (math.log(self.high) - low)


@dataclass(frozen=True, slots=True)
class NamedScale:
    """A place for each name, in their order; a value is the index of its name."""

    ticks: tuple[Tick, ...]

    def place(self, value: float) -> float:
        """Return the middle of a name's share of the axis."""
        return (value + 0.5) / len(self.ticks)


# An axis from 0 (its beginning) to 1 (its end); a place outside [0, 1] is not on it.
Scale: TypeAlias = LinearScale | LogScale | NamedScale


def is_drawable(value: float) -> bool:
    """Say whether a value has a place on an axis; NaN and infinity have none."""
    return abs(value) < _LARGEST


def linear_scale(values: Sequence[float], most_ticks: int = 6, from_zero: bool = False) -> Scale:
    """Return a scale whose first and last ticks hold all values.

    Args:
        values: At least one; all drawable.
        most_ticks: About how many ticks there may be; one or two more are possible.
        from_zero: Whether zero is on the axis though no value is near it.
    """
    low, high = min(values), max(values)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    low, high = _apart(low, high)
    step = _step(high - low, most_ticks, _STEPS)
    first, last = math.floor(low / step), math.ceil(high / step)
    numbers = [float(f"{step * count:.12g}") for count in range(first, last + 1)]
    ticks = tuple(Tick(number, tick_label(number, step)) for number in numbers)
    return LinearScale(numbers[0], numbers[-1], ticks)


def fitted_scale(values: Sequence[float], most_ticks: int, is_whole: bool) -> Scale:
    """Return a scale from the lowest to the highest value, with round ticks between.

    Args:
        values: At least one; all drawable.
        most_ticks: How many ticks there is room for.
        is_whole: Whether only whole numbers are meant, such as rounds.
    """
    low, high = min(values), max(values)
    if is_whole:
        low, high = math.floor(low), max(math.ceil(high), math.floor(low) + 1)
    low, high = _apart(low, high)
    step = _step(high - low, most_ticks, _WHOLE_STEPS if is_whole else _STEPS)
    step = max(step, 1.0) if is_whole else step
    counts = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    numbers = [float(f"{step * count:.12g}") for count in counts]
    return LinearScale(low, high, tuple(Tick(one, tick_label(one, step)) for one in numbers))


def log_scale(values: Sequence[float]) -> Scale:
    """Return a scale of decades that holds all values, which are above 0.

    A decade has a tick at 1, 2 and 5 where there are few decades.
    """
    low, high = math.log10(min(values)), math.log10(max(values))
    first, last = math.floor(max(low, -290) + 1e-9), math.ceil(high - 1e-9)
    last = max(last, first + 1)
    every = max(1, math.ceil((last - first) / 6))
    mantissas = _MANTISSAS if last - first <= 2 else (1.0,)
    numbers = [
        float(f"{mantissa}e{decade}")
        for decade in range(first, last + 1)
        for mantissa in mantissas
        if (decade - first) % every == 0 and (decade < last or mantissa == 1.0)
    ]
    ticks = tuple(Tick(number, f"{number:g}") for number in numbers)
    return LogScale(float(f"1e{first}"), float(f"1e{last}"), ticks)


def named_scale(names: Sequence[str]) -> Scale:
    """Return a scale with a place for each name."""
    return NamedScale(tuple(Tick(float(index), name) for index, name in enumerate(names)))


def tick_label(value: float, step: float) -> str:
    """Return a tick as written: as many digits as its step needs, a true minus."""
    if not 1e-4 <= step < 1e6:
        text = f"{value:.6g}"
    else:
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        digits += abs(round(step, digits) - step) > step * 1e-6  # a step of 2.5
        text = f"{value:,.{digits}f}"
    return text.replace("-", "\u2212", 1) if text.startswith("-") else text


def plain_number(value: float) -> str:
    """Return a value as read: whole, or with four digits; a true minus."""
    if not math.isfinite(value):
        return "–"
    is_short_whole = abs(value) < 1e9 and value == int(value)
    text = f"{value:,.0f}" if is_short_whole else f"{value:.4g}"
    return text.replace("-", "\u2212", 1) if text.startswith("-") else text


def _apart(low: float, high: float) -> tuple[float, float]:
    """Return two values with room between them: around a single value, some on both sides."""
    size = max(abs(low), abs(high))
    if high - low > max(size * _SMALLEST_SPREAD, _SMALLEST):
        return low, high
    room = 0.1 * size if size > _SMALLEST else 1.0
    return low - room, high + room


def _step(spread: float, most: int, steps: Sequence[float]) -> float:
    """Return the smallest round step that divides a spread into at most so many parts."""
    rough = spread / max(1, most - 1)
    size: float = 10.0 ** math.floor(math.log10(rough))
    return next(size * one for one in steps if size * one >= rough * (1 - 1e-9))
