"""Several comparisons at once, e.g. one a hospital: corrected so that all together err in 5 %."""

from collections.abc import Sequence

from wardround.common.statistics.interval import LEVEL


def holm_p_values(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values adjusted for their number (Holm, Scand. J. Statistics 6, 1979).

    If in truth there is no difference anywhere, one of them is below 0.05 in 5 of 100 studies at
    most, whatever depends on what.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return tuple(adjusted)


def holm_levels(p_values: Sequence[float], level: float = LEVEL) -> tuple[float, ...]:
    """Return the level of each comparison's interval, so that it leaves 0 out if Holm says so.

    The clearest difference gets the interval of Bonferroni's level, 1 - 0.05 / m of m comparisons;
    the next is one of m - 1, and so on. From the first that is not told on, all have the level that
    this one was judged at.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    levels, left, told = [level] * len(p_values), len(p_values), True
    for rank, index in enumerate(order):
        left = len(p_values) - rank if told else left
        levels[index] = 1 - (1 - level) / left
        told = told and p_values[index] <= (1 - level) / left
    return tuple(levels)
