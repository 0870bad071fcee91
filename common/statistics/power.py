"""How many patients a statement would take, from what those at hand say."""

import math

from wardround.common.statistics.interval import LEVEL, normal_quantile

POWER = 0.8  # of telling a true difference of that size
_MOST = 1e7  # patients; more is as good as never


def patients_needed(
    standard_error: float, patients: int, effect: float, level: float = LEVEL, power: float = POWER
) -> int | None:
    """Return how many patients it would take to tell a difference of this size from none.

    The standard error falls with the root of the number of patients; a true difference is told with
    this power if it is as large as the two normal quantiles together times the error (Lachin,
    Controlled Clinical Trials 2, 1981).

    Args:
        standard_error: Of the difference, with the patients at hand.
        patients: How many these are.
        effect: The difference that should be told, in the metric's unit; its sign does not matter.
        level: Of the interval that must leave 0 out.
        power: In (0, 1).

    Returns:
        None where it cannot be told, or is more than ten million.
    """
    if patients < 1 or math.isnan(standard_error) or math.isnan(effect) or effect == 0:
        return None
    reach = normal_quantile((1 + level) / 2) + normal_quantile(power)
    needed = patients * (reach * standard_error / effect) ** 2
    return math.ceil(needed) if needed <= _MOST else None


def rounded_patients(count: int) -> int:
    """Return a number of patients as it is said: two digits, never less than it is."""
    if count < 100:
        return count
    unit = 10 ** (len(str(count)) - 2)
    return int(-(-count // unit) * unit)
