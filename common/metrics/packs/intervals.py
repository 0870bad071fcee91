"""The pack "intervals": how sure each metric of a model is, with the patient as the unit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.packs.ratios import STEP, RatioSums, weighted
from wardround.common.metrics.packs.score_counts import ScoreCounts
from wardround.common.metrics.task_sums import (
    Arrays,
    Counts,
    Sums,
    check_same_shape,
    counts_of,
    refuse,
    sums_of,
)
from wardround.common.study.plans.packs import ratios_of
from wardround.common.study.study import Study

Floats = NDArray[np.float64]
_MOST_PATIENTS = 10**9
_MOST = 1e8  # of a mean square: no patient has more examinations than its root


@dataclass(frozen=True, slots=True, eq=False)
class PlacementSums:
    """Sums over patients of squared placement values, of K classes (Obuchowski, Biometrics 1997).

    A placement value is the share of the other side's examinations that an examination is ahead of.
    A patient has the sum of those of its positive examinations, less as many times the AUROC, and
    the same of its negative ones.

    Attributes:
        patients: ``(K, 3)`` with positive examinations, with negative ones, with any.
        means: ``(K, 3)`` over these: of the square of the first sum, of the second, and of their
            product.
    """

    patients: Counts
    means: Sums

    @classmethod
    def empty(cls, classes: int) -> "PlacementSums":
        """Return the sums over nobody."""
        return cls(np.zeros((classes, 3), dtype=np.int64), np.zeros((classes, 3)))

    @classmethod
    def from_arrays(cls, patients: Counts, means: Sums) -> "PlacementSums":
        """Return sums that came, once they can be true.

        Raises:
            InputError: They cannot.
        """
        if (patients < 0).any() or (patients > _MOST_PATIENTS).any():
            refuse("placements", "counts fewer patients than nobody, or more than there are")
        if (patients[:, :2] > patients[:, 2:]).any():
            refuse("placements", "has more patients on one side than on both")
        if (means[:, :2] < 0).any() or (np.abs(means) > _MOST).any():
            refuse("placements", "has squares that no patients can have")
        # Of the product's sum the square is at most that of the squares' (Cauchy and Schwarz).
        first, second = (means[:, side] * patients[:, side] for side in (0, 1))
        both = means[:, 2] * patients[:, 2]
        slack = STEP * (1 + patients[:, 2]) * (1 + np.sqrt(first) + np.sqrt(second))
        if (np.abs(both) > np.sqrt(first * second) + slack).any():
            refuse("placements", "has products that no patients can have")
        if (means[patients == 0] != 0).any():
            refuse("placements", "is of nobody")
        return cls(patients, means)

    def to_arrays(self, prefix: str) -> Arrays:
        """Return them as they travel."""
        return {f"{prefix}patients": self.patients, f"{prefix}means": self.means}

    def plus(self, other: "PlacementSums") -> "PlacementSums":
        """Return the sums over the patients of both, placed against the same histograms.

        Raises:
            InputError: They are of two studies.
        """
        check_same_shape(self.means, other.means)
        flat = weighted(
            self.patients.reshape(-1),
            self.means.reshape(-1, 1),
            other.patients.reshape(-1),
            other.means.reshape(-1, 1),
        )
        return PlacementSums(self.patients + other.patients, flat.reshape(self.means.shape))


def placed(counts: ScoreCounts) -> tuple[Floats, Floats, Floats]:
    """Return placement values by bin against histograms, and the AUROC: ``(K, B)`` twice, ``(K,)``.

    The first is a positive's in each bin, the second a negative's; NaN where a side is empty.
    """
    of_positives, of_negatives = _below(counts.negatives), 1 - _below(counts.positives)
    return of_positives, of_negatives, counts.areas()


def _below(counts: Counts) -> Floats:
    upto = np.cumsum(counts, axis=1) - counts / 2
    total = counts.sum(axis=1, keepdims=True).astype(float)
    undefined = np.full(upto.shape, math.nan)
    return np.asarray(np.divide(upto, total, out=undefined, where=total > 0))


def placement_error(
    sums: PlacementSums, counts: ScoreCounts, place: int, slack: tuple[float, float] = (0.0, 0.0)
) -> float:
    """Return the standard error of a class's AUROC, clustered by patient.

    Args:
        counts: Against which the sums were placed.
        slack: How far off a positive's and a negative's placement value can be, in the root mean
            square, since the histograms were coarsened: the error is as large as that allows.

    Returns:
        NaN where one patient alone has a side.
    """
    patients = sums.patients[place]
    if (patients < 2).any():
        return math.nan
    ahead, behind = (float(side[place].sum()) for side in (counts.positives, counts.negatives))
    squares = np.sqrt(sums.means[place, :2]) + np.asarray(slack)
    crossed = float(sums.means[place, 2])
    n, m, all_patients = (float(count) for count in patients)
    variance = (squares[0] * n / ahead) ** 2 / (n - 1) + (squares[1] * m / behind) ** 2 / (m - 1)
    cross = 2 * crossed * all_patients**2 / ((all_patients - 1) * ahead * behind)
    return math.sqrt(max(0.0, float(variance) + cross))


@dataclass(frozen=True, slots=True, eq=False)
class IntervalPack:
    """What the pack tells of one site's test patients.

    Attributes:
        ratios: Of the metrics that are ratios, in the order of ``ratios_of``.
        counts: Of a classification: histograms of scores.
        own: Of a classification: placements against the site's own histograms, so that its own
            AUROC has an interval.
    """

    ratios: RatioSums
    counts: ScoreCounts | None
    own: PlacementSums | None

    @classmethod
    def empty(cls, study: Study) -> "IntervalPack":
        """Return the pack of nobody."""
        ratios = RatioSums.empty(ratios_of(study))
        if study.task.dense:
            return cls(ratios, None, None)
        classes = study.class_count
        counts = ScoreCounts.empty(classes, study.evaluation.pack_bins)
        return cls(ratios, counts, PlacementSums.empty(classes))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], study: Study) -> "IntervalPack":
        """Return a pack that came, of the names, shapes and types of :meth:`empty`.

        Raises:
            InputError: No patients can give it.
        """
        ratios = RatioSums.from_arrays(
            counts_of(arrays, "ratios-patients"),
            sums_of(arrays, "ratios-means"),
            ratios_of(study),
        )
        if study.task.dense:
            return cls(ratios, None, None)
        counts = ScoreCounts.from_arrays(
            counts_of(arrays, "positives"), counts_of(arrays, "negatives")
        )
        own = PlacementSums.from_arrays(
            counts_of(arrays, "own-patients"), sums_of(arrays, "own-means")
        )
        return cls(ratios, counts, own)

    def to_arrays(self) -> Arrays:
        """Return it as it travels."""
        arrays = self.ratios.to_arrays("ratios-")
        if self.counts is not None and self.own is not None:
            arrays |= self.counts.to_arrays("") | self.own.to_arrays("own-")
        return arrays

    def plus(self, other: "IntervalPack") -> "IntervalPack":
        """Return the pack of both sites' patients; placements against two histograms do not merge.

        Raises:
            InputError: They are of two studies.
        """
        counts = self.counts
        if counts is not None and other.counts is not None:
            counts = counts.plus(other.counts)
        return IntervalPack(self.ratios.plus(other.ratios), counts, None)
