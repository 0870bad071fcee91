"""The area under the ROC curve with its variance, from scores or from two histograms.

DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988; in n log n by ranks (Sun and Xu, IEEE Signal
Processing Letters 21, 2014). Each examination counts as independent here: where a patient may have
several, use :mod:`wardround.common.statistics.clustered_auroc`.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def placements(scores: Floats, labels: Flags) -> Floats:
    """Return each examination's placement value, ``(N,)``.

    Of a positive the share of negatives with a lower score, of a negative the share of positives
    with a higher one, a tie counting one half. NaN where there are none.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)`` which are positive.
    """
    positives, negatives = np.sort(scores[labels]), np.sort(scores[~labels])
    values = np.full(len(scores), math.nan)
    if len(negatives):
        values[labels] = _share_below(scores[labels], negatives)
    if len(positives):
        values[~labels] = 1 - _share_below(scores[~labels], positives)
    return values


def placements_in_histograms(
    bins: NDArray[np.int64], labels: Flags, positives: Floats, negatives: Floats
) -> Floats:
    """Return each examination's placement value against two histograms, ``(N,)``.

    A pair within one bin counts as a tie. The histograms may be those of several hospitals.

    Args:
        bins: ``(N,)`` the bin of each score.
        labels: ``(N,)`` which are positive.
        positives: ``(B,)`` positives in each bin.
        negatives: ``(B,)`` negatives in each bin.
    """
    of_positive, of_negative = _bin_placements(positives, negatives)
    return np.where(labels, of_positive[bins], of_negative[bins])


def auroc_from_scores(scores: Floats, labels: Flags) -> float:
    """Return the share of (positive, negative) pairs in the right order; NaN without a pair."""
    values = placements(scores, labels)[labels]
    return float(values.mean()) if len(values) else math.nan


def delong_covariance(scores: Floats, labels: Flags) -> tuple[Floats, Floats]:
    """Return the AUROC of R models on the same examinations and their covariance.

    Args:
        scores: ``(N, R)``.
        labels: ``(N,)`` which are positive.

    Returns:
        ``(R,)`` and ``(R, R)``; NaN where a side has fewer than two examinations.
    """
    values = np.stack([placements(column, labels) for column in scores.T], axis=1)
    ahead, behind = values[labels], values[~labels]
    if min(len(ahead), len(behind)) < 2:
        areas = ahead.mean(axis=0) if len(ahead) else np.full(scores.shape[1], math.nan)
        return areas, np.full((scores.shape[1],) * 2, math.nan)
    covariance = np.cov(ahead, rowvar=False) / len(ahead)
    covariance = covariance + np.cov(behind, rowvar=False) / len(behind)
    return ahead.mean(axis=0), np.atleast_2d(covariance)


def delong_from_scores(scores: Floats, labels: Flags) -> tuple[float, float]:
    """Return the AUROC of one model and its variance, from ``(N,)`` scores."""
    areas, covariance = delong_covariance(scores[:, None], labels)
    return float(areas[0]), float(covariance[0, 0])


def delong_from_histograms(positives: Floats, negatives: Floats) -> tuple[float, float]:
    """Return AUROC and variance from ``(B,)`` histograms of scores; a pair in one bin is a tie.

    They may be sums over hospitals. NaN where a side has fewer than two examinations.
    """
    ahead, behind = positives.sum(), negatives.sum()
    if min(ahead, behind) <= 0:
        return math.nan, math.nan
    of_positive, of_negative = _bin_placements(positives, negatives)
    area = float(positives @ of_positive / ahead)
    if min(ahead, behind) < 2:
        return area, math.nan
    first = float(positives @ (of_positive - area) ** 2) / (ahead - 1)
    second = float(negatives @ (of_negative - area) ** 2) / (behind - 1)
    return area, float(first / ahead + second / behind)


def hanley_mcneil_error(auroc: float, positives: int, negatives: int) -> float:
    """Return the standard error of an AUROC from nothing but the two numbers of patients.

    Hanley and McNeil, Radiology 143, 1982, equations 1 and 2. That formula says 0 for an area
    of exactly 1, so the area is kept half a patient of the smaller group away from 0 and 1.

    Args:
        auroc: In [0, 1].
        positives: Patients with the class; NaN is returned for none.
        negatives: Patients without it; NaN is returned for none.
    """
    if min(positives, negatives) < 1 or math.isnan(auroc):
        return math.nan
    edge = 0.5 / min(positives, negatives)
    area = min(max(auroc, edge), 1 - edge)
    both_positive = area / (2 - area)
    both_negative = 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area)
        + (positives - 1) * (both_positive - area**2)
        + (negatives - 1) * (both_negative - area**2)
    ) / (positives * negatives)
    return math.sqrt(variance)


def _share_below(scores: Floats, others: Floats) -> Floats:
    """Return the share of sorted others below each score, an equal one counting one half."""
    below = np.searchsorted(others, scores, side="left")
    upto = np.searchsorted(others, scores, side="right")
    return (below + upto) / (2 * len(others))


def _bin_placements(positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """Return the placement value of a positive and of a negative in each bin, ``(B,)`` each."""
    ahead, behind = np.asarray(positives, float), np.asarray(negatives, float)
    below = behind.cumsum() - behind / 2
    above = ahead.sum() - ahead.cumsum() + ahead / 2
    return _shares(below, behind.sum()), _shares(above, ahead.sum())


def _shares(parts: Floats, total: float) -> Floats:
    return parts / total if total > 0 else np.full(len(parts), math.nan)
