"""Where to act: a threshold chosen on validation patients, and what it gives on test patients.

A threshold that is chosen on the patients on whom it is measured looks better than it is.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import InputError
from wardround.common.statistics.clustered import (
    PatientSums,
    Ratios,
    metric_interval,
    of_patients,
    patient_sums,
)
from wardround.common.statistics.decisions.curves import Floats, Mask, PassedCounts
from wardround.common.statistics.interval import Interval, normal_quantile, unknown_interval

Aim = Literal["sensitivity", "specificity"]
_Z95 = normal_quantile(0.975)
# Ratios of a patient's four numbers: cases reported and missed, others reported and left alone.
_SHARES = {
    "sensitivity": ((1, 0, 0, 0), (1, 1, 0, 0)),
    "specificity": ((0, 0, 0, 1), (0, 0, 1, 1)),
    "ppv": ((1, 0, 0, 0), (1, 0, 1, 0)),
    "npv": ((0, 0, 0, 1), (0, 1, 0, 1)),
    "flagged": ((1, 0, 1, 0), (1, 1, 1, 1)),
    "prevalence": ((1, 1, 0, 0), (1, 1, 1, 1)),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """What acting from a threshold on gives, each with the interval of the patients' scatter.

    Attributes:
        sensitivity: Cases that are reported.
        specificity: Others that are left alone.
        ppv: Of those reported, how many are cases, where as many have it as among those measured.
        npv: Of those not reported, how many are none.
        flagged: Share that is reported.
        prevalence: Share that has it.
    """

    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval
    flagged: Interval
    prevalence: Interval


def choose_threshold(counts: PassedCounts, aim: Aim, wanted: float) -> float:
    """Return the threshold that reaches the aim at the least cost of the other.

    The highest one with at least the wanted sensitivity, or the lowest one with at least the wanted
    specificity. NaN where there are no examinations to choose it on.

    Args:
        counts: Of one class on *validation* patients.
        aim: Of which the wanted value is.
        wanted: In (0, 1).

    Raises:
        InputError: The wanted value is outside.
    """
    if not 0 < wanted < 1:
        msg = f"a wanted {aim} must be in (0, 1), got {wanted:g}: 0.9 is usual."
        raise InputError(msg)
    if not counts.positives or not counts.negatives:
        return math.nan
    if aim == "sensitivity":
        reached = counts.sensitivity >= wanted - 1e-12
        return float(counts.thresholds[np.flatnonzero(reached)[0]])
    reached = counts.false_alarms <= 1 - wanted + 1e-12
    last = int(np.flatnonzero(reached)[-1])
    if last:
        return float(counts.thresholds[last])
    # Nothing may pass: just above the highest score, which is a number that can be written down.
    return float(np.nextafter(counts.thresholds[1], math.inf))


def operation_sums(
    scores: Floats, labels: Mask, patients: NDArray[np.int64], threshold: float
) -> PatientSums:
    """Return sums over patients of four numbers, which add up over sites.

    A patient's cases that are reported and that are missed, and its others that are reported and
    that are left alone.

    Args:
        scores: ``(N,)`` of one class on *test* examinations.
        labels: ``(N,)`` which are of the class.
        patients: ``(N,)`` whose each is.
        threshold: From which score on the class is reported.
    """
    reported = scores >= threshold
    return answer_sums(reported, labels, patients)


def answer_sums(reported: Mask, labels: Mask, patients: NDArray[np.int64]) -> PatientSums:
    """Return the same of ``(N,)`` answers, however they were found."""
    columns = [reported & labels, ~reported & labels, reported & ~labels, ~reported & ~labels]
    return patient_sums(of_patients(np.stack(columns, axis=1).astype(np.float64), patients))


def operate(sums: PatientSums) -> Operation:
    """Return what a threshold gives; a share of nothing is NaN, an interval of one patient too."""
    return Operation(**{name: metric_interval(sums, _ratio(name)) for name in _SHARES})


def predictive_values(sums: PatientSums, prevalence: float) -> tuple[Interval, Interval]:
    """Return PPV and NPV where a stated share of people has the class, by Bayes' rule.

    The intervals are Mercaldo, Lau and Zhou's (Statistics in Medicine 26, 2007) on the scale of
    log-odds, half a case added to each cell, with as many cases as the patients are worth.

    Args:
        sums: Of :func:`operation_sums`, over patients of any prevalence.
        prevalence: Share of those who will be examined that has the class, in (0, 1).

    Raises:
        InputError: The prevalence is outside.
    """
    if not 0 < prevalence < 1:
        msg = f"a prevalence must be in (0, 1), got {prevalence:g}: "
        msg += "say which share of the people examined has the class."
        raise InputError(msg)
    hit, quiet = _worth(sums, "sensitivity"), _worth(sums, "specificity")
    odds = prevalence / (1 - prevalence)
    return (
        _by_bayes(hit, quiet, odds, sums.patients),
        _by_bayes(quiet, hit, 1 / odds, sums.patients),
    )


def _ratio(name: str) -> Ratios:
    above, below = _SHARES[name]
    return Ratios(np.array([above], float), np.array([below], float), np.ones(1))


def _worth(sums: PatientSums, name: str) -> tuple[float, float]:
    """Return a share, and how many independent examinations say as much as the patients do."""
    ratio = _ratio(name)
    found = metric_interval(sums, ratio)
    share, error = found.value, found.standard_error
    if not 0 < share < 1 or not error > 0:
        # All agree, which says nothing of how patients differ: those of equal weight (Kish 1965).
        below = ratio.denominators[0]
        squares = float(below @ sums.products @ below)
        return share, max(1.0, float(below @ sums.totals) ** 2 / max(squares, 1.0))
    return share, max(1.0, share * (1 - share) / error**2)


def _by_bayes(
    some: tuple[float, float], others: tuple[float, float], odds: float, patients: int
) -> Interval:
    """Return odds x some : (1 - others) as a share, with its interval."""
    if math.isnan(some[0]) or math.isnan(others[0]):
        return unknown_interval(math.nan, patients)
    top, bottom = some[0] * odds, 1 - others[0]
    value = top / (top + bottom) if top + bottom > 0 else math.nan
    # Half a case in each cell: a share of 1 of few patients is not known without error.
    share = (some[0] * some[1] + 0.5) / (some[1] + 1)
    rest = ((1 - others[0]) * others[1] + 0.5) / (others[1] + 1)
    spread = math.sqrt((1 - share) / (share * some[1]) + (1 - rest) / (rest * others[1]))
    centre = math.log(odds) + math.log(share) - math.log(rest)
    low, high = _logistic(centre - _Z95 * spread), _logistic(centre + _Z95 * spread)
    if not math.isnan(value):
        low, high = min(low, value), max(high, value)
    middle = _logistic(centre)
    return Interval(value, low, high, spread * middle * (1 - middle), math.inf, patients)


def _logistic(value: float) -> float:
    return 0.5 * (1 + math.tanh(value / 2))
