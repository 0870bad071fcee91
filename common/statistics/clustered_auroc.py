"""The AUROC's variance where a patient may have several images, from sums that add up.

Obuchowski, Biometrics 53, 1997. Each patient has a sum of placement values of its positive and one
of its negative images; the variance needs these sums' totals, squares and products alone. Several
readings of the same patients (classes, or two models) are held together, so that a mean over
classes and a difference of two models have a variance too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.statistics.clustered import of_patients, satterthwaite
from wardround.common.statistics.delong import hanley_mcneil_error, placements
from wardround.common.statistics.interval import (
    LEVEL,
    Interval,
    logit_interval,
    t_interval,
    unknown_interval,
)
from wardround.common.statistics.paired import MOST_ENUMERATED, swaps

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class PlacementSums:
    """Sums over patients of R readings; a reading is a model's scores of a class.

    A patient has four numbers a reading: the placement values of its positive images added up, how
    many these are, and the same of its negative images.

    Attributes:
        patients: How many.
        with_positives: ``(R,)`` patients with a positive image.
        with_negatives: ``(R,)`` patients with a negative image.
        totals: ``(R, 4)``.
        products: ``(R, 4, R, 4)`` of every two numbers of a patient.
    """

    patients: int
    with_positives: NDArray[np.int64]
    with_negatives: NDArray[np.int64]
    totals: Floats
    products: Floats

    def plus(self, other: "PlacementSums") -> "PlacementSums":
        """Return the sums over the patients of both, placed against the same histograms."""
        return PlacementSums(
            self.patients + other.patients,
            self.with_positives + other.with_positives,
            self.with_negatives + other.with_negatives,
            self.totals + other.totals,
            self.products + other.products,
        )

    @property
    def areas(self) -> Floats:
        """The AUROC of each reading, ``(R,)``; NaN where a side is empty."""
        ahead, behind = self.totals[:, 1], self.totals[:, 3]
        undefined = np.full(len(ahead), math.nan)
        return np.asarray(
            np.divide(self.totals[:, 0], ahead, out=undefined, where=(ahead > 0) & (behind > 0))
        )


def placement_sums(values: Floats, labels: Flags, patients: NDArray[np.int64]) -> PlacementSums:
    """Return the sums of placement values.

    Args:
        values: ``(N, R)`` placement values, e.g. of :func:`placements_in_histograms`.
        labels: ``(N, R)`` which examinations are positive.
        patients: ``(N,)`` which patient each is of.
    """
    columns = np.stack(
        [
            np.where(labels, np.nan_to_num(values), 0.0),
            labels.astype(float),
            np.where(labels, 0.0, np.nan_to_num(values)),
            (~labels).astype(float),
        ],
        axis=2,
    )
    readings = columns.shape[1]
    each = of_patients(columns.reshape(len(values), 4 * readings), patients)
    split = each.reshape(len(each), readings, 4)
    return PlacementSums(
        len(each),
        np.count_nonzero(split[:, :, 1], axis=0),
        np.count_nonzero(split[:, :, 3], axis=0),
        split.sum(axis=0),
        (each.T @ each).reshape(readings, 4, readings, 4),
    )


def placement_sums_of_scores(
    scores: Floats, labels: Flags, patients: NDArray[np.int64]
) -> PlacementSums:
    """Return the sums of R readings placed against each other, ``(N, R)`` scores and labels."""
    columns = [placements(scores[:, r], labels[:, r]) for r in range(scores.shape[1])]
    return placement_sums(np.stack(columns, axis=1), labels, patients)


def auroc_covariance(sums: PlacementSums, small_sample: bool = False) -> Floats:
    """Return the covariance of the readings' AUROCs, ``(R, R)``, as in Obuchowski's paper.

    With ``small_sample`` each part is raised by 2 / n, where n is the effective number of patients
    behind it: the variance loses one patient to the mean, and those with most images pull the mean
    to themselves. Intervals use that; by simulation they then cover what they promise.

    NaN for fewer than two patients. Where one patient alone has a side, or an area of 0 or 1 leaves
    no scatter, a reading's variance is Hanley and McNeil's with the patients in the place of
    images, and it has no covariance.
    """
    if sums.patients < 2:
        return np.full((len(sums.totals),) * 2, math.nan)
    ahead, behind = _parts(sums)
    products = sums.products.reshape(4 * len(sums.totals), -1)
    of_positives = _correction(sums.with_positives)
    of_negatives = _correction(sums.with_negatives)
    if small_sample:
        few, others = effective_patients(sums)
        of_positives = of_positives * (1 + 2 / np.maximum(few, 1))
        of_negatives = of_negatives * (1 + 2 / np.maximum(others, 1))
    crossed = ahead @ products @ behind.T
    found = (
        (ahead @ products @ ahead.T) * np.sqrt(np.outer(of_positives, of_positives))
        + (behind @ products @ behind.T) * np.sqrt(np.outer(of_negatives, of_negatives))
        + (crossed + crossed.T) * sums.patients / (sums.patients - 1)
    )
    modelled = ~scatters(sums)
    found = np.where(np.logical_or.outer(modelled, modelled), 0.0, found)
    counts = zip(sums.areas, sums.with_positives, sums.with_negatives, strict=True)
    errors = [hanley_mcneil_error(float(area), int(m), int(n)) for area, m, n in counts]
    return np.asarray(found + np.diag(np.where(modelled, np.nan_to_num(errors) ** 2, 0.0)))


def scatters(sums: PlacementSums) -> Flags:
    """Return of which readings the patients' scatter tells the variance, ``(R,)``."""
    several = np.minimum(sums.with_positives, sums.with_negatives) > 1
    return several & (sums.areas > 0) & (sums.areas < 1)


def auroc_freedom(sums: PlacementSums, weights: Floats) -> float:
    """Return Satterthwaite's degrees of freedom of a sum of AUROCs with ``(K,)`` weights."""
    ahead, behind = _parts(sums)
    products = sums.products.reshape(4 * len(sums.totals), -1)
    shares = np.array([part @ products @ part for part in (*ahead, *behind)])
    known = np.tile(scatters(sums), 2)
    counts = np.concatenate(effective_patients(sums))
    counts = np.where(known, counts, sums.patients)  # the error is not from scatter
    used = np.concatenate([weights, weights]) != 0
    return satterthwaite((shares * np.concatenate([weights, weights]) ** 2)[used], counts[used])


def class_weights(sums: PlacementSums) -> Floats:
    """Return the weights of a mean over the readings whose AUROC is defined, ``(R,)``."""
    defined = ~np.isnan(sums.areas)
    return np.asarray(defined / max(1, int(defined.sum())))


def auroc_interval(sums: PlacementSums, weights: Floats, level: float = LEVEL) -> Interval:
    """Return a weighted mean of AUROCs with its interval, on the scale of the log odds.

    Args:
        weights: ``(R,)`` that add up to 1; 0 where an area is not defined.
    """
    used = weights > 0
    if not used.any():
        return unknown_interval(math.nan, sums.patients)
    value = float(weights[used] @ sums.areas[used])
    spread = auroc_covariance(sums, small_sample=True)[np.ix_(used, used)]
    variance = float(weights[used] @ spread @ weights[used])
    error = math.sqrt(max(0.0, variance)) if not math.isnan(variance) else math.nan
    few = np.minimum(sums.with_positives, sums.with_negatives)[used]
    edge, freedom = float(weights[used] @ (0.5 / few)), auroc_freedom(sums, weights)
    return logit_interval(value, error, freedom, sums.patients, edge, level)


def auroc_difference(sums: PlacementSums, weights: Floats, level: float = LEVEL) -> Interval:
    """Return the difference of two models' AUROCs on the same patients, with its paired interval.

    Args:
        weights: ``(R,)``, positive for the readings of the one model and negative for the other's,
            e.g. of :func:`paired_weights`.
    """
    used = weights != 0
    if not used.any():
        return unknown_interval(math.nan, sums.patients)
    value = float(weights[used] @ sums.areas[used])
    spread = auroc_covariance(sums, small_sample=True)[np.ix_(used, used)]
    variance = float(weights[used] @ spread @ weights[used])
    error = math.sqrt(max(0.0, variance)) if not math.isnan(variance) else math.nan
    return t_interval(value, error, auroc_freedom(sums, weights), sums.patients, level)


def paired_weights(sums: PlacementSums) -> Floats:
    """Return ``(K,)`` weights of a mean difference: the first half of readings minus the second.

    Both halves are the same classes in the same order. A class whose area is not defined has 0.
    """
    half = len(sums.totals) // 2
    defined = ~np.isnan(sums.areas[:half]) & ~np.isnan(sums.areas[half:])
    mean = defined / max(1, int(defined.sum()))
    return np.concatenate([mean, -mean])


def _parts(sums: PlacementSums) -> tuple[Floats, Floats]:
    """Return what each reading's positives and negatives move its AUROC, ``(R, 4R)`` each."""
    readings = len(sums.totals)
    areas = np.nan_to_num(sums.areas)
    ahead, behind = np.zeros((2, readings, readings, 4))
    for r in range(readings):
        if sums.totals[r, 1] > 0 and sums.totals[r, 3] > 0:
            ahead[r, r, :2] = np.array([1.0, -areas[r]]) / sums.totals[r, 1]
            behind[r, r, 2:] = np.array([1.0, -areas[r]]) / sums.totals[r, 3]
    return ahead.reshape(readings, -1), behind.reshape(readings, -1)


def effective_patients(sums: PlacementSums) -> tuple[Floats, Floats]:
    """Return as how many equal patients the positives and the negatives count, ``(R,)`` each.

    ``(sum of images)² / sum of images²`` (Kish, Survey Sampling, 1965): patients with many images
    weigh more, and their scatter is known from fewer.
    """
    readings = np.arange(len(sums.totals))
    squares = sums.products[readings, :, readings, :]
    found = []
    for side in (1, 3):
        images, of_squares = sums.totals[:, side], squares[:, side, side]
        found.append(np.divide(images**2, of_squares, out=np.zeros_like(images), where=images > 0))
    return found[0], found[1]


def _correction(counts: NDArray[np.int64]) -> Floats:
    """Return n / (n - 1); 1 for one, where the scatter is 0 anyhow."""
    return np.asarray(counts / np.maximum(counts - 1, 1))


def auroc_swap_differences(
    scores: tuple[Floats, Floats], labels: Flags, patients: NDArray[np.int64], weights: Floats
) -> tuple[Floats, bool]:
    """Return the differences of two models' AUROCs that swapping patients makes; were all tried?

    A patient's scores by the one and by the other model are swapped, as ranks, since the two scales
    may differ (Venkatraman and Begg, Biometrika 83, 1996). Whose ranks are alike need no swap.

    Args:
        scores: ``(N, K)`` of each model.
        labels: ``(N, K)`` which are positive; a class with a weight has both sides.
        patients: ``(N,)`` which patient each is of.
        weights: ``(K,)`` of the classes.
    """
    from scipy.stats import rankdata  # slow to import, and most runs compare no models here

    _, numbers = np.unique(patients, return_inverse=True)
    ranks = tuple(rankdata(one, axis=0) for one in scores)
    of_one = np.arange(int(numbers.max()) + 1)[:, None] == numbers  # (P, N)
    differs = np.flatnonzero(of_one @ (ranks[0] != ranks[1]).any(axis=1))
    tables = [
        (weights[k], _ordered_pairs((ranks[0][:, k], ranks[1][:, k]), labels[:, k], of_one))
        for k in np.flatnonzero(weights)
    ]
    drawn = swaps(len(differs))
    swapped = np.zeros((len(drawn), len(of_one)))
    swapped[:, differs] = drawn
    gains = [w * (_area(pairs, swapped) - _area(pairs, 1 - swapped)) for w, pairs in tables]
    return np.asarray(np.sum(gains, axis=0)), len(differs) <= MOST_ENUMERATED


def _ordered_pairs(
    ranks: tuple[Floats, Floats], labels: Flags, of_one: Flags
) -> Mapping[tuple[int, int], Floats]:
    """Return the share of pairs in the right order of every two patients, ``(P, P)``.

    By which model ranks the positive and which the negative.
    """
    ahead, behind = of_one[:, labels].astype(float), of_one[:, ~labels].astype(float)
    count = ahead.shape[1] * behind.shape[1]
    return {
        (a, b): ahead @ _in_order(ranks[a][labels], ranks[b][~labels]) @ behind.T / count
        for a in (0, 1)
        for b in (0, 1)
    }


def _in_order(ahead: Floats, behind: Floats) -> Floats:
    """Return 1 for each pair in the right order, one half for a tie, ``(M, N)``."""
    return np.asarray((ahead[:, None] > behind) + 0.5 * (ahead[:, None] == behind))


def _area(pairs: Mapping[tuple[int, int], Floats], swapped: Floats) -> Floats:
    """Return the AUROC where each patient has the ranks of one of two models, ``(B,)``."""
    chosen = (1 - swapped, swapped)
    return np.asarray(
        sum(((chosen[a] @ table) * chosen[b]).sum(axis=1) for (a, b), table in pairs.items())
    )
