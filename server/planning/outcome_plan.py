"""Mean and scale of the number that a regression predicts, from the sites' three sums of it."""

import math
from collections.abc import Iterator

from wardround.common.study.study import Study
from wardround.server.planning.merging import MergedHistogram
from wardround.server.planning.planned_value import PlannedValue

_NARROWEST = 1e-3  # of the range: what sums of three decimals can tell from nothing
_SURE = 2.0  # times its noise must a variance be


def plan_outcome(found: MergedHistogram, study: Study, of_whom: str) -> Iterator[PlannedValue]:
    """Yield ``data.outcome.mean`` and ``scale``; the scale only where noise does not hide it.

    Args:
        found: Sums of ``(1 - y)^2``, ``2 y (1 - y)`` and ``y^2`` of the patients, with y from 0 at
            the low end of the range to 1 at its high end.
        study: Says the range.
        of_whom: Of how many patients, in words.
    """
    if not found.total > 0:
        return
    outcome = study.outcome
    low, _, high = (float(cell) / found.total for cell in found.cells)
    mean = (1 - low + high) / 2  # b2 + b1 / 2, for the three shares add up to 1
    value = outcome.low + outcome.width * mean
    value = min(max(_significant(value), outcome.low), outcome.low + outcome.width)
    yield PlannedValue("data.outcome.mean", value, f"Mean of {of_whom}.")
    variance = high - mean**2
    # The variance is b2 / n - ((b2 + b1 / 2) / n)^2: its derivatives by the three sums, times n.
    shared = 2 * mean**2 - high
    moved = (shared, shared - mean, shared + 1 - 2 * mean)
    noise = found.noise / found.total * math.hypot(*moved)
    if variance < max(_NARROWEST**2, _SURE * noise):
        return
    scale = min(max(math.sqrt(variance), _NARROWEST), 1.0) * outcome.width
    yield PlannedValue(
        "data.outcome.scale",
        _significant(scale),
        f"Standard deviation of the number, from the same sums of {of_whom}.",
    )


def _significant(number: float) -> float:
    return float(f"{number:.4g}")
