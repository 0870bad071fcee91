"""Variances whose unit is the patient, however many examinations each has, from sums that add up.

Accuracy, sensitivity, specificity, balanced accuracy, F1, mean Dice, HD95 and surface Dice are all
means of ratios of totals, and a total is a sum over patients. The variance follows from how the
patients' own sums scatter (linearisation of a ratio: Cochran, Sampling Techniques, 1977, section
6.4; Rao and Scott, Biometrics 48, 1992). Each patient's sums stay where they are: only their total
and the total of their products are needed, and those of several hospitals add up.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.statistics.interval import (
    LEVEL,
    Z95,
    Interval,
    log_interval,
    score_interval,
    unknown_interval,
)

Floats = NDArray[np.float64]
_ROUNDING = 1e-12
_AGRESTI = Z95**2  # trials that draw a proportion towards one half (Agresti and Coull 1998)


@dataclass(frozen=True, slots=True, eq=False)
class PatientSums:
    """Sums over patients of D numbers each, and of the products of these numbers.

    Attributes:
        patients: How many.
        totals: ``(D,)``.
        products: ``(D, D)``.
    """

    patients: int
    totals: Floats
    products: Floats

    def plus(self, other: "PatientSums") -> "PatientSums":
        """Return the sums over the patients of both; no patient is of both."""
        return PatientSums(
            self.patients + other.patients,
            self.totals + other.totals,
            self.products + other.products,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Ratios:
    """A metric: the weighted mean of R ratios of linear functions of D totals.

    Attributes:
        numerators: ``(R, D)``.
        denominators: ``(R, D)``.
        weights: ``(R,)``, adding up to 1; all 0 where the metric is not defined.
        bounded: Whether each ratio lies in [0, 1].
    """

    numerators: Floats
    denominators: Floats
    weights: Floats
    bounded: bool = True

    def values(self, totals: Floats) -> Floats:
        """Return each ratio, ``(..., R)`` from ``(..., D)``; NaN where there is nothing."""
        below = totals @ self.denominators.T
        undefined = np.full(below.shape, math.nan)
        return np.asarray(
            np.divide(totals @ self.numerators.T, below, out=undefined, where=below > 0)
        )

    def value(self, totals: Floats) -> Floats:
        """Return the metric, ``(...)`` from ``(..., D)``.

        Where resampling left a ratio nothing, it is the mean of the others.
        """
        values = self.values(totals)
        weights = np.where(np.isnan(values), 0.0, self.weights)
        total = weights.sum(axis=-1)
        undefined = np.full(total.shape, math.nan)
        found = np.nan_to_num(values) * weights
        return np.asarray(np.divide(found.sum(axis=-1), total, out=undefined, where=total > 0))


def of_patients(values: Floats, patients: NDArray[np.int64]) -> Floats:
    """Return ``(P, D)`` sums over each patient's examinations.

    Args:
        values: ``(N, D)``.
        patients: ``(N,)`` which patient each is of, counted from 0 or any numbers.
    """
    _, numbers = np.unique(patients, return_inverse=True)
    count = int(numbers.max()) + 1 if len(numbers) else 0
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, numbers, values)
    return sums


def patient_sums(of_each: Floats) -> PatientSums:
    """Return the sums of ``(P, D)`` numbers of P patients."""
    return PatientSums(len(of_each), of_each.sum(axis=0), of_each.T @ of_each)


def covariance(sums: PatientSums, metric: Ratios) -> Floats:
    """Return the covariance of a metric's ratios, ``(R, R)``; NaN for fewer than two patients."""
    return covariance_of(sums, slopes(sums, metric), effective_patients(sums, metric))


def slopes(sums: PatientSums, metric: Ratios) -> Floats:
    """Return by how much each ratio changes with each total, ``(R, D)``; 0 where undefined."""
    values = np.nan_to_num(metric.values(sums.totals))
    below = sums.totals @ metric.denominators.T
    changes = metric.numerators - values[:, None] * metric.denominators
    defined = below > 0
    return np.asarray(
        np.divide(changes, below[:, None], out=np.zeros_like(changes), where=defined[:, None])
    )


def covariance_of(sums: PatientSums, directions: Floats, counts: Floats) -> Floats:
    """Return the covariance of R linear functions of the totals, ``(R, R)``.

    Args:
        sums: Of at least two patients; else the covariance is NaN.
        directions: ``(R, D)`` slopes, along which the totals add up to 0.
        counts: ``(R,)`` effective patients of each; one of n is lost to the mean.
    """
    if sums.patients < 2:
        return np.full((len(directions),) * 2, math.nan)
    lost = np.sqrt(np.where(counts > 1, counts / np.maximum(counts - 1, 1e-9), 1.0))
    return np.asarray(directions @ sums.products @ directions.T * np.outer(lost, lost))


def metric_interval(sums: PatientSums, metric: Ratios, level: float = LEVEL) -> Interval:
    """Return a metric with the interval that the patients' scatter gives.

    A ratio of 0 or 1, and one that a single patient has, does not scatter. Its variance is that of
    a proportion drawn towards one half by two successes and two failures (Agresti and Coull, The
    American Statistician 52, 1998), each effective patient a trial. The degrees of freedom are
    Satterthwaite's: a class that few patients have counts as few.
    """
    values, weights = metric.values(sums.totals), metric.weights
    value = float(metric.value(sums.totals))
    counts = effective_patients(sums, metric)
    used = (weights > 0) & ~np.isnan(values)
    spread = np.where(np.outer(used, used), covariance(sums, metric), 0.0)
    scattered = used & (np.diag(spread) > _ROUNDING) & (counts > 1 + _ROUNDING)
    behind = counts
    if metric.bounded:
        spread = np.where(np.outer(scattered, scattered), spread, 0.0)
        spread = spread + np.diag(np.where(used & ~scattered, _least(values, counts), 0.0))
        behind = np.where(scattered, counts, sums.patients)  # the error is not from scatter
    variance = max(0.0, float(weights @ spread @ weights))
    freedom = satterthwaite(np.diag(spread)[used] * weights[used] ** 2, behind[used])
    if sums.patients < 2 or math.isnan(freedom):
        return unknown_interval(value, sums.patients)
    if not metric.bounded:
        return log_interval(value, math.sqrt(variance), freedom, sums.patients, level)
    trials = 1 / float((weights[used] ** 2 / counts[used]).sum())
    return score_interval(value, math.sqrt(variance), freedom, sums.patients, level, trials)


def satterthwaite(shares: Floats, counts: Floats) -> float:
    """Return the degrees of freedom of a variance that is a sum of parts.

    Args:
        shares: ``(R,)`` parts of the variance.
        counts: ``(R,)`` patients behind each, effective ones.

    Returns:
        NaN where they cannot be told.
    """
    if not len(counts) or (counts <= 1).any() or np.isnan(shares).any():
        return math.nan
    if not shares.any():
        return float(counts.min() - 1)
    return float(shares.sum() ** 2 / (shares**2 / (counts - 1)).sum())


def effective_patients(sums: PatientSums, metric: Ratios) -> Floats:
    """Return as how many equal patients each ratio's count, ``(R,)``.

    ``(sum of examinations)² / sum of examinations²`` (Kish, Survey Sampling, 1965): patients with
    many examinations weigh more, and their scatter is known from fewer.
    """
    totals = metric.denominators @ sums.totals
    squares = np.einsum("rd,de,re->r", metric.denominators, sums.products, metric.denominators)
    return np.asarray(np.divide(totals**2, squares, out=np.zeros_like(totals), where=squares > 0))


def _least(values: Floats, counts: Floats) -> Floats:
    """Return the variance of each ratio that does not scatter, ``(R,)``."""
    trials = np.maximum(counts, 1.0)
    nearer = (np.nan_to_num(values) * trials + _AGRESTI / 2) / (trials + _AGRESTI)
    return np.asarray(nearer * (1 - nearer) / trials)
