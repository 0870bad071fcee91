"""Two models on the same patients: their difference, its interval, and how far chance goes.

Where a hospital sends sums only, the sum and the sum of squares of its patients' differences give
Student's interval. Who holds the patients can do more: if both models are equally good, a patient's
two answers may be swapped, and the differences that swaps make are what chance does (an exact test:
Fisher 1935; Pitman 1937). All examinations of a patient are swapped together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wardround.common.statistics.clustered import (
    PatientSums,
    Ratios,
    covariance_of,
    effective_patients,
    patient_sums,
    satterthwaite,
    slopes,
)
from wardround.common.statistics.interval import (
    LEVEL,
    Interval,
    t_interval,
    t_quantile,
    two_sided_p,
    unknown_interval,
)

Floats = NDArray[np.float64]
DRAWS = 1_999  # of swaps, so that 5 % of these and the observed one are 100
MOST_ENUMERATED = 10  # patients that differ; up to 1,024 swaps are all tried
_MOST_KEPT = 1_000  # patients whose swaps are kept for the next comparison
_SEED = 0
_ROUNDING = 1e-9  # two swaps that make the same difference may differ by this


@dataclass(frozen=True, slots=True)
class DifferenceSums:
    """Sums over patients of the difference of two models; those of several hospitals add up.

    Attributes:
        patients: How many.
        total: Of the differences.
        squares: Of their squares.
    """

    patients: int
    total: float
    squares: float

    def plus(self, other: "DifferenceSums") -> "DifferenceSums":
        """Return the sums over the patients of both."""
        return DifferenceSums(
            self.patients + other.patients, self.total + other.total, self.squares + other.squares
        )


def difference_sums(differences: Floats) -> DifferenceSums:
    """Return the sums of ``(P,)`` differences, one a patient."""
    total, squares = float(differences.sum()), float((differences**2).sum())
    return DifferenceSums(len(differences), total, squares)


def difference_interval(sums: DifferenceSums, level: float = LEVEL) -> Interval:
    """Return the mean difference of a patient with Student's interval; unknown for one patient."""
    n = sums.patients
    if n < 1:
        return unknown_interval(math.nan, 0)
    mean = sums.total / n
    if n < 2:
        return unknown_interval(mean, n)
    variance = max(0.0, sums.squares - sums.total**2 / n) / (n - 1)
    return t_interval(mean, math.sqrt(variance / n), n - 1, n, level)


def ratio_difference(
    first: Floats, second: Floats, metric: Ratios, level: float = LEVEL
) -> Interval:
    """Return a metric's difference of two models with the interval of the patients' scatter.

    Args:
        first: ``(P, D)`` numbers of P patients by the first model.
        second: The same patients' by the second.
        metric: The same for both.
        level: Of the interval.
    """
    sums = patient_sums(np.concatenate([first, second], axis=1))
    return ratio_difference_of_sums(sums, metric, level)


def ratio_difference_of_sums(sums: PatientSums, metric: Ratios, level: float = LEVEL) -> Interval:
    """Return the same from sums over patients of ``2D`` numbers, the first model's first."""
    width = metric.numerators.shape[1]
    halves = [_half(sums, slice(0, width)), _half(sums, slice(width, 2 * width))]
    value = float(metric.value(halves[0].totals) - metric.value(halves[1].totals))
    if sums.patients < 2 or math.isnan(value):
        return unknown_interval(value, sums.patients)
    changes = [slopes(half, metric) for half in halves]
    counts = effective_patients(halves[0], metric)
    along = np.concatenate([changes[0], -changes[1]], axis=1)
    spread = covariance_of(sums, along, counts)
    weights = metric.weights
    shares = np.maximum(np.diag(spread), 0.0) * weights**2
    freedom = satterthwaite(shares[shares > 0], counts[shares > 0])
    if not (shares > 0).any():
        freedom = sums.patients - 1
    variance = max(0.0, float(weights @ spread @ weights))
    return t_interval(value, math.sqrt(variance), freedom, sums.patients, level)


def _half(sums: PatientSums, part: slice) -> PatientSums:
    return PatientSums(sums.patients, sums.totals[part], sums.products[part, part])


def swap_differences(
    first: Floats, second: Floats, values_of: Sequence[Callable[[Floats], Floats]]
) -> tuple[list[Floats], bool]:
    """Return the differences that swapping patients' answers makes, and whether all were tried.

    Args:
        first: ``(P, D)`` numbers of P patients by the first model.
        second: The same patients' by the second.
        values_of: Metrics, each ``(...)`` from totals ``(..., D)``.

    Returns:
        ``(B,)`` a metric.
    """
    move = second - first
    move = move[(move != 0).any(axis=1)]  # the others swap for themselves
    moved = swaps(len(move)) @ move
    totals = first.sum(axis=0) + moved, second.sum(axis=0) - moved
    differences = [value_of(totals[0]) - value_of(totals[1]) for value_of in values_of]
    return differences, len(move) <= MOST_ENUMERATED


def swaps(patients: int) -> Floats:
    """Return a 0/1 table ``(B, P)``: all ways to swap, or 1,999 at random."""
    if patients <= MOST_ENUMERATED:
        codes = np.arange(2**patients)
        return ((codes[:, None] >> np.arange(patients)) & 1).astype(np.float64)
    return _drawn_swaps(patients) if patients <= _MOST_KEPT else _draw_swaps(patients)


def _draw_swaps(patients: int) -> Floats:
    generator = np.random.default_rng(_SEED)
    return generator.integers(0, 2, (DRAWS, patients), dtype=np.int8).astype(np.float64)


_drawn_swaps = lru_cache(maxsize=8)(_draw_swaps)  # several metrics, and sites of one size


def swap_p_value(observed: float, differences: Floats, all_tried: bool) -> float:
    """Return the share of swaps that make a difference as large as the observed one.

    Args:
        observed: The difference without a swap.
        differences: ``(B,)`` with swaps.
        all_tried: Whether these are all; else the observed one counts as one more draw.
    """
    as_large = int((np.abs(differences) >= abs(observed) - _ROUNDING).sum())
    if all_tried:
        return as_large / len(differences)
    return (as_large + 1) / (len(differences) + 1)


def swap_margin(differences: Floats, all_tried: bool, level: float = LEVEL) -> float:
    """Return the largest of ``(S,)`` swapped differences that chance makes in ``level`` of them."""
    ordered = np.sort(np.abs(differences))[::-1]
    place = math.floor((1 - level) * (len(ordered) + (0 if all_tried else 1)) + _ROUNDING)
    return float(ordered[max(0, min(place, len(ordered)) - (0 if all_tried else 1))])


def with_swaps(interval: Interval, differences: Floats, all_tried: bool) -> Interval:
    """Return a difference whose interval is no narrower than what swaps say.

    The standard error is raised until the interval reaches as far as chance does in 95 of 100
    swaps, and until Student's p-value is at least that of the swaps (an interval made of a test:
    Miettinen, Am. J. Epidemiol. 103, 1976). Both keep a few patients who all agree from being
    certain, so that the degrees of freedom are those of all patients.
    """
    freedom = interval.patients - 1
    if freedom < 1 or math.isnan(interval.value):
        return interval
    error = np.nan_to_num(interval.standard_error)
    error = max(float(error), swap_margin(differences, all_tried) / t_quantile(freedom))
    chance = swap_p_value(interval.value, differences, all_tried)
    if two_sided_p(interval.value, error, freedom) < chance < 1:
        error = abs(interval.value) / t_quantile(freedom, 1 - chance)
    return t_interval(interval.value, error, freedom, interval.patients)
