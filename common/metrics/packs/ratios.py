"""Sums over patients of two numbers each: what a ratio and its clustered variance need.

A metric such as accuracy or a mean Dice is a sum over patients of ``a`` divided by one of ``b``.
Its variance, with the patient as the unit, follows from the means of a, b, a², ab and b² (Cochran,
Sampling Techniques, 3rd ed. 1977, section 6.4). The means of several sites merge; nothing of one
patient is needed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.task_sums import Arrays, Counts, Sums, check_same_shape, refuse
from wardround.common.study.plans.packs import Ratio

STEP = 10.0**-3  # of what leaves a hospital rounded
_MOST_PATIENTS = 10**9
_LARGEST = 1e9  # of a mean square: no patient has more examinations than its root
_A, _B, _AA, _AB, _BB = range(5)


@dataclass(frozen=True, slots=True, eq=False)
class RatioSums:
    """Patients, and their mean numbers, of R ratios.

    Attributes:
        patients: ``(R,)`` who have a part in each ratio; 0 where too few do, and nothing is told.
        means: ``(R, 5)`` of a, b, a², ab and b² over these patients.
    """

    patients: Counts
    means: Sums

    @classmethod
    def empty(cls, ratios: Sequence[Ratio]) -> "RatioSums":
        """Return the sums over nobody."""
        return cls(np.zeros(len(ratios), dtype=np.int64), np.zeros((len(ratios), 5)))

    @classmethod
    def from_arrays(cls, patients: Counts, means: Sums, ratios: Sequence[Ratio]) -> "RatioSums":
        """Return sums that came, of the shapes of :meth:`empty`, once they can be true.

        Raises:
            InputError: No patients can give them.
        """
        if (patients < 0).any() or (patients > _MOST_PATIENTS).any():
            refuse("patients", "counts fewer than nobody, or more than there are")
        a, b, aa, ab, bb = means.T
        largest = np.array([one.largest for one in ratios])
        slack = STEP * (1 + np.abs(means).max(axis=1, initial=1.0))
        if ((means < 0) | (means > _LARGEST)).any() or (means[patients == 0] != 0).any():
            refuse("means", "is negative, of nobody, or larger than any patient's")
        if ((b < 1 - STEP) & (patients > 0)).any():  # who has a part has an examination, or more
            refuse("means", "is of patients without an examination")
        if ((a > largest * b + slack) | (ab > largest * bb + slack)).any() or (
            aa > largest**2 * bb + slack * (1 + largest) ** 2
        ).any():
            refuse("means", "has a ratio that no patients can have")
        if ((a**2 > aa + slack) | (b**2 > bb + slack) | (ab**2 > aa * bb + slack**2 + slack)).any():
            refuse("means", "has squares that no patients can have")
        return cls(patients, means)

    def to_arrays(self, prefix: str) -> Arrays:
        """Return them as they travel."""
        return {f"{prefix}patients": self.patients, f"{prefix}means": self.means}

    def plus(self, other: "RatioSums") -> "RatioSums":
        """Return the sums over the patients of both.

        Raises:
            InputError: They are of two studies.
        """
        check_same_shape(self.means, other.means)
        return RatioSums(
            self.patients + other.patients,
            weighted(self.patients, self.means, other.patients, other.means),
        )


@dataclass(frozen=True, slots=True)
class Estimate:
    """A ratio over patients, and how sure it is.

    Attributes:
        value: NaN where nobody is told of.
        standard_error: Clustered by patient; NaN where it cannot be told.
        lost: How far off the value can be since what came was rounded; in the standard error the
            loss is in already.
        patients: Behind the value, as the sites round them.
        sites: How many sites tell of it.
    """

    value: float
    standard_error: float
    lost: float
    patients: int
    sites: int = 0


def estimate(sites: Sequence[RatioSums], place: int, cell: Sequence[int]) -> Estimate:
    """Return a ratio over the patients of some sites.

    Args:
        place: Which ratio.
        cell: The smallest cell of each site: to a multiple of it the patients were rounded down,
            and with more than 1 the means are of three decimals.
    """
    told = [(one.patients[place], one.means[place], c) for one, c in zip(sites, cell, strict=True)]
    told = [one for one in told if one[0] > 0]
    count = sum(int(n) for n, _, _ in told)
    if not told:
        return Estimate(math.nan, math.nan, 0.0, 0)
    means = np.sum([n * mean for n, mean, _ in told], axis=0) / count
    if not means[_B] > 0:
        return Estimate(math.nan, math.nan, 0.0, count, len(told))
    value = float(means[_A] / means[_B])
    step = 0.5 * STEP if any(c > 1 for _, _, c in told) else 0.0
    # Each rounded mean may be half a step more or less, in the direction that is worst.
    spread = means[_AA] - 2 * value * means[_AB] + value**2 * means[_BB] + step * (1 + value) ** 2
    error = math.nan
    if count > 1:
        error = math.sqrt(max(0.0, float(spread)) / (count - 1)) / float(means[_B])
    return Estimate(value, error, _lost(told, value, step), count, len(told))


def _lost(
    told: Sequence[tuple[np.int64, NDArray[np.float64], int]], value: float, step: float
) -> float:
    """Return how far a ratio can be from the exact one: by rounded means and rounded counts."""
    reach = 0.0
    for sign in (1.0, -1.0):
        tops = np.array([mean[_A] + sign * step for _, mean, _ in told])
        bottoms = np.array([max(mean[_B] - sign * step, 1e-12) for _, mean, _ in told])
        least = np.array([float(n) for n, _, _ in told])
        most = least + np.array([c - 1 for _, _, c in told])
        order = np.argsort(sign * tops / bottoms)
        # A weighted mean is furthest out with all weight on one end: where to cut is tried.
        for cut in range(len(told) + 1):
            weights = least.copy()
            weights[order[cut:]] = most[order[cut:]]
            ratio = float((weights * tops).sum() / (weights * bottoms).sum())
            reach = max(reach, sign * (ratio - value))
    return reach


def weighted(one: Counts, ones: Sums, other: Counts, others: Sums) -> Sums:
    """Return the means ``(R, M)`` over two groups of so many patients, 0 over nobody."""
    total = (one + other)[:, None]
    sums = one[:, None] * ones + other[:, None] * others
    return np.asarray(np.divide(sums, total, out=np.zeros_like(sums), where=total > 0))
