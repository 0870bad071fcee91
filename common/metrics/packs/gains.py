"""The pack "gains": what the training gave, each patient held against himself."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.packs.ratios import STEP, Estimate, weighted
from wardround.common.metrics.task_sums import (
    Arrays,
    Counts,
    Sums,
    check_same_shape,
    counts_of,
    refuse,
    sums_of,
)
from wardround.common.study.plans.packs import gains_of
from wardround.common.study.study import Study

_MOST_PATIENTS = 10**9


@dataclass(frozen=True, slots=True, eq=False)
class GainPack:
    """Sums over a site's test patients of the difference of two models, of G metrics.

    Attributes:
        patients: ``(G,)``; 0 where too few, and nothing is told.
        means: ``(G, 2)`` of each patient's difference (the common model's mean over his
            examinations, less the other's), and of its square.
    """

    patients: Counts
    means: Sums

    @classmethod
    def empty(cls, study: Study) -> "GainPack":
        """Return the pack of nobody."""
        count = len(gains_of(study))
        return cls(np.zeros(count, dtype=np.int64), np.zeros((count, 2)))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], study: Study) -> "GainPack":
        """Return a pack that came, of the names, shapes and types of :meth:`empty`.

        Raises:
            InputError: No patients can give it.
        """
        patients, means = counts_of(arrays, "patients"), sums_of(arrays, "means")
        largest = np.array([one.largest for one in gains_of(study)])
        if (patients < 0).any() or (patients > _MOST_PATIENTS).any():
            refuse("patients", "counts fewer than nobody, or more than there are")
        if (means[patients == 0] != 0).any():
            refuse("means", "is of nobody")
        mean, square = means.T
        too_large = (np.abs(mean) > largest + STEP) | (square > largest**2 + STEP)
        if too_large.any() or (mean**2 > square + 2 * STEP).any():
            refuse("means", "has differences that no patients can have")
        return cls(patients, means)

    def to_arrays(self) -> Arrays:
        """Return it as it travels."""
        return {"patients": self.patients, "means": self.means}

    def plus(self, other: "GainPack") -> "GainPack":
        """Return the pack of both sites' patients.

        Raises:
            InputError: They are of two studies.
        """
        check_same_shape(self.means, other.means)
        return GainPack(
            self.patients + other.patients,
            weighted(self.patients, self.means, other.patients, other.means),
        )


def gain_estimate(sites: Sequence[GainPack], place: int, cell: Sequence[int]) -> Estimate:
    """Return the mean difference of a metric over the patients of some sites, paired.

    Args:
        cell: The smallest cell of each site.
    """
    told = [
        (int(one.patients[place]), one.means[place], c)
        for one, c in zip(sites, cell, strict=True)
        if one.patients[place] > 0
    ]
    count = sum(n for n, _, _ in told)
    if not count:
        return Estimate(math.nan, math.nan, 0.0, 0)
    mean, square = np.sum([n * means for n, means, _ in told], axis=0) / count
    step = 0.5 * STEP if any(c > 1 for _, _, c in told) else 0.0
    spread = max(0.0, float(square) - float(mean) ** 2 + step * (1 + 2 * abs(float(mean))))
    error = math.sqrt(spread / (count - 1)) if count > 1 else math.nan
    # A site of n told patients may have up to n + cell - 1, which shifts the weights.
    most = sum(n + c - 1 for n, _, c in told)
    shift = max((abs(float(m[0]) - float(mean)) for _, m, _ in told), default=0.0)
    lost = step + shift * (most - count) / most
    return Estimate(float(mean), error, lost, count, len(told))
