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

from wardround.common.statistics.interval import LEVEL, Interval, log_interval, score_interval

Floats = NDArray[np.float64]
_AGRESTI = 1.959964**2  # trials that draw a proportion towards one half (Agresti and Coull 1998)


@dataclass(frozen=True, slots=True, eq=False)
class PatientSums:
    """Sums over patients of D numbers each, and of the products of these numbers.

    Attributes:
        patients: How many.
        present: ``(D,)`` how many have a number that is not 0.
        totals: ``(D,)``.
        products: ``(D, D)``.
    """

    patients: int
    present: NDArray[np.int64]
    totals: Floats
    products: Floats

    def plus(self, other: "PatientSums") -> "PatientSums":
        """Return the sums over the patients of both; no patient is of both."""
        return PatientSums(
            self.patients + other.patients,
            self.present + other.present,
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
        return np.divide(totals @ self.numerators.T, below, out=undefined, where=below > 0)

    def value(self, totals: Floats) -> Floats:
        """Return the metric, ``(...)`` from ``(..., D)``.

        Where resampling left a ratio nothing, it is the mean of the others.
        """
        values = self.values(totals)
        weights = np.where(np.isnan(values), 0.0, self.weights)
        total = weights.sum(axis=-1)
        undefined = np.full(total.shape, math.nan)
        found = np.nan_to_num(values) * weights
        return np.divide(found.sum(axis=-1), total, out=undefined, where=total > 0)


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
    return PatientSums(
        len(of_each), np.count_nonzero(of_each, axis=0), of_each.sum(axis=0), of_each.T @ of_each
    )


def covariance(sums: PatientSums, metric: Ratios) -> Floats:
    """Return the covariance of a metric's ratios, ``(R, R)``; NaN for fewer than two patients."""
    if sums.patients < 2:
        return np.full((len(metric.weights),) * 2, math.nan)
    return covariance_of(sums, slopes(sums, metric))


def slopes(sums: PatientSums, metric: Ratios) -> Floats:
    """Return by how much each ratio changes with each total, ``(R, D)``; 0 where undefined."""
    values = np.nan_to_num(metric.values(sums.totals))
    below = sums.totals @ metric.denominators.T
    changes = metric.numerators - values[:, None] * metric.denominators
    defined = below > 0
    return np.divide(changes, below[:, None], out=np.zeros_like(changes), where=defined[:, None])


def covariance_of(sums: PatientSums, directions: Floats) -> Floats:
    """Return the covariance of linear functions of the totals, ``(R, R)`` from ``(R, D)``."""
    n = sums.patients
    along = directions @ sums.totals
    centred = directions @ sums.products @ directions.T - np.outer(along, along) / n
    return np.asarray(centred * n / (n - 1))


def metric_interval(sums: PatientSums, metric: Ratios, level: float = LEVEL) -> Interval:
    """Return a metric with the interval that the patients' scatter gives.

    A ratio that is 0 or 1, or nearly so, scatters too little to be believed. So each ratio's
    variance is that of a proportion drawn towards one half by two successes and two failures
    (Agresti and Coull, The American Statistician 52, 1998) with the effective number of patients.
    The degrees of freedom are Satterthwaite's: a class that few patients have counts as few.
    """
    values, weights = metric.values(sums.totals), metric.weights
    value = float(metric.value(sums.totals))
    counts = _patients_of_each(sums, metric)
    used = (weights > 0) & ~np.isnan(values)
    spread = np.where(np.outer(used, used), covariance(sums, metric), 0.0)
    scattered = used & (np.diag(spread) > 0)
    if metric.bounded:
        spread = _not_too_small(spread, np.nan_to_num(values), counts)
        counts = np.where(scattered, counts, sums.patients)  # the error is not from scatter
    variance = max(0.0, float(weights @ spread @ weights))
    freedom = satterthwaite(np.diag(spread)[used] * weights[used] ** 2, counts[used])
    error = math.sqrt(variance) if not math.isnan(freedom) else math.nan
    make = score_interval if metric.bounded else log_interval
    return make(value, error, freedom, sums.patients, level)


def satterthwaite(shares: Floats, counts: NDArray[np.int64]) -> float:
    """Return the degrees of freedom of a variance that is a sum of parts.

    Args:
        shares: ``(R,)`` parts of the variance.
        counts: ``(R,)`` patients behind each; one with a part and a single patient has none.

    Returns:
        NaN where they cannot be told.
    """
    if not len(counts) or (counts < 2).any() or np.isnan(shares).any():
        return math.nan
    if not shares.any():
        return float(counts.min() - 1)
    return float(shares.sum() ** 2 / (shares**2 / (counts - 1)).sum())


def _patients_of_each(sums: PatientSums, metric: Ratios) -> NDArray[np.int64]:
    """Return how many patients are behind each ratio, ``(R,)``."""
    used = (metric.denominators > 0).astype(np.int64)
    return np.minimum(sums.patients, used @ sums.present)


def _not_too_small(spread: Floats, values: Floats, counts: NDArray[np.int64]) -> Floats:
    """Return the covariance with each variance as if the ratio were nearer to one half."""
    variances = np.diag(spread)
    scatter = values * (1 - values)
    trials = np.divide(scatter, variances, out=counts.astype(float), where=variances > 0)
    trials = np.where(scatter > 0, trials, counts)
    nearer = (values * trials + _AGRESTI / 2) / (trials + _AGRESTI)
    wanted = np.divide(nearer * (1 - nearer), trials, out=np.zeros_like(nearer), where=trials > 0)
    raised = np.maximum(wanted, variances)
    scale = np.sqrt(np.divide(raised, variances, out=np.ones_like(raised), where=variances > 0))
    return spread * np.outer(scale, scale) + np.diag(np.where(variances > 0, 0.0, raised))
