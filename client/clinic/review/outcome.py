"""Whether choosing cases was better than drawing them by lot: a number, its interval, a word."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wardround.common.statistics.interval import (
    Interval,
    normal_quantile,
    t_interval,
    unknown_interval,
)

_TAIL = 0.975


@dataclass(frozen=True, slots=True)
class Comparison:
    """A way of choosing beside the lot on the same budget.

    Attributes:
        difference: Of the chosen less of the drawn; positive is better.
        unit: What it is a difference of, e.g. "AUROC".
        counted: What was repeated, e.g. "seeds".
    """

    difference: Interval
    unit: str
    counted: str

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``no gain``: the interval holds 0 or cannot be told."""
        if not self.difference.is_known:
            return "no gain"
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else "no gain"

    def in_words(self, name: str = "choosing") -> str:
        """Return the verdict as a sentence."""
        found = self.difference
        number = f"{found.value:+.4f} {self.unit}"
        if not found.is_known:
            return (
                f"{name} did not beat random: {number}, and {found.patients} {self.counted} are "
                "too few to tell an interval."
            )
        fact = {
            "better": f"{name} beat random",
            "worse": f"{name} did worse than random",
            "no gain": f"{name} did not beat random",
        }[self.verdict]
        return (
            f"{fact}: {number} (95 % interval {found.low:+.4f} to {found.high:+.4f}, "
            f"{found.patients} {self.counted})."
        )


def compare_repeats(chosen: Sequence[float], drawn: Sequence[float], unit: str) -> Comparison:
    """Return the mean difference of two arms over repeats that share their seed (paired, t).

    Args:
        chosen: One value a seed.
        drawn: Of the same seeds.
    """
    differences = np.asarray(chosen, dtype=np.float64) - np.asarray(drawn, dtype=np.float64)
    count, mean = len(differences), float(np.mean(differences))
    if count < 2:
        return Comparison(unknown_interval(mean, count), unit, "seeds")
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    return Comparison(t_interval(mean, error, count - 1, count), unit, "seeds")


def compare_yields(
    chosen: tuple[int, int], drawn: tuple[int, int], unit: str = "of the labels changed"
) -> Comparison:
    """Return how many more of the chosen cases had a wrong label (Newcombe 1998, method 10).

    Args:
        chosen: How many changed, of how many that were read.
        drawn: The same of the random arm.
    """
    (a, n), (b, m) = chosen, drawn
    if not n or not m:
        return Comparison(unknown_interval(math.nan, n + m), unit, "cases read")
    p, q = a / n, b / m
    (low_p, high_p), (low_q, high_q) = _wilson(a, n), _wilson(b, m)
    difference = p - q
    low = difference - math.hypot(p - low_p, high_q - q)
    high = difference + math.hypot(high_p - p, q - low_q)
    error = (high - low) / (2 * normal_quantile(_TAIL))
    found = Interval(difference, low, high, error, math.inf, n + m)
    return Comparison(found, unit, "cases read")


def _wilson(count: int, trials: int) -> tuple[float, float]:
    """Return the score interval of a proportion (Wilson 1927)."""
    z = normal_quantile(_TAIL)
    share = count / trials
    middle = share + z * z / (2 * trials)
    reach = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return (middle - reach) / scale, (middle + reach) / scale
