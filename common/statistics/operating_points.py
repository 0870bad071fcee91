"""Where to act: a threshold chosen on validation patients, and what it gives on test patients.

A threshold that is chosen on the patients on whom it is measured looks better than it is.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import InputError
from wardround.common.statistics.curves import Floats, Mask, PassedCounts

Aim = Literal["sensitivity", "specificity"]
_Z95 = 1.959964  # two-sided 95 % point of the normal distribution


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval; all NaN where nothing is counted.

    Attributes:
        examinations: What is counted.
        patients: Whose they are.
        worth: How many independent examinations would say as much.
    """

    value: float
    low: float
    high: float
    examinations: int = 0
    patients: int = 0
    worth: float = 0.0


NOTHING = Share(math.nan, math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class Operation:
    """What acting from a threshold on gives.

    Attributes:
        threshold: From which score on the class is reported.
        sensitivity: Cases that are found.
        specificity: Others that are left alone.
        ppv: Of those reported, how many are cases, where as many have it as among those measured.
        npv: Of those not reported, how many are none.
        flagged: Share that is reported.
    """

    threshold: float
    sensitivity: Share
    specificity: Share
    ppv: Share
    npv: Share
    flagged: Share


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


def operate(
    scores: Floats, labels: Mask, patients: NDArray[np.int64], threshold: float
) -> Operation:
    """Return what a threshold gives on ``(N,)`` scores of one class, by patients.

    Args:
        scores: Of *test* examinations.
        labels: Which are of the class.
        patients: Whose each is; over several sites no number may mean two patients.
        threshold: NaN where none was chosen; all is NaN then.
    """
    if math.isnan(threshold):
        return Operation(math.nan, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)
    reported = scores >= threshold
    return Operation(
        threshold,
        patient_share(reported[labels], patients[labels]),
        patient_share(~reported[~labels], patients[~labels]),
        patient_share(labels[reported], patients[reported]),
        patient_share(~labels[~reported], patients[~reported]),
        patient_share(reported, patients),
    )


def predictive_values(operation: Operation, prevalence: float) -> tuple[Share, Share]:
    """Return PPV and NPV where a stated share of people has the class, by Bayes' rule.

    The intervals are Mercaldo, Lau and Zhou's (2007) on the log-odds scale, half a case added to
    each cell, with as many cases as the patients are worth.

    Args:
        operation: Says sensitivity and specificity, measured on patients of any prevalence.
        prevalence: Share of those who will be examined that has the class, in (0, 1).

    Raises:
        InputError: The prevalence is outside.
    """
    if not 0 < prevalence < 1:
        msg = f"a prevalence must be in (0, 1), got {prevalence:g}: "
        msg += "say which share of the people examined has the class."
        raise InputError(msg)
    hit, quiet = operation.sensitivity, operation.specificity
    if math.isnan(hit.value) or math.isnan(quiet.value):
        return NOTHING, NOTHING
    odds = prevalence / (1 - prevalence)
    found, left = _ratio(hit, quiet, odds), _ratio(quiet, hit, 1 / odds)
    return found, left


def patient_share(values: Mask, patients: NDArray[np.int64]) -> Share:
    """Return the share of ``(N,)`` that holds, with a 95 % interval over patients.

    Wilson's interval with as many examinations as are worth the same when they are independent
    (Rao and Scott 1992); where all agree, which says nothing of how patients differ, as many as
    there are patients.
    """
    count = len(values)
    if not count:
        return NOTHING
    _, whose = np.unique(patients, return_inverse=True)
    people = int(whose.max()) + 1
    share = float(values.mean())
    worth = _effective_count(values.astype(np.float64), whose, people)
    middle = (share + _Z95**2 / (2 * worth)) / (1 + _Z95**2 / worth)
    half = _Z95 * math.sqrt(share * (1 - share) / worth + _Z95**2 / (4 * worth**2))
    half /= 1 + _Z95**2 / worth
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Share(share, min(low, share), max(high, share), count, people, worth)


def _effective_count(values: Floats, whose: NDArray[np.int64], people: int) -> float:
    """Return how many independent examinations say as much as these."""
    count, share = len(values), float(values.mean())
    if people == count or people < 2 or share in (0.0, 1.0):
        return float(people)
    residuals = np.bincount(whose, weights=values - share)
    variance = people / (people - 1) * float((residuals**2).sum()) / count**2
    independent = share * (1 - share) / count
    # Never more than there are examinations: patients who differ too little are chance.
    return (
        min(float(count), share * (1 - share) / variance)
        if variance > independent
        else float(count)
    )


def _ratio(some: Share, others: Share, odds: float) -> Share:
    """Return odds x some / (1 - others) as a share, with its interval."""
    worth, others_worth = some.worth, others.worth
    top, bottom = some.value * odds, 1 - others.value
    value = top / (top + bottom) if top + bottom > 0 else math.nan
    # Half a case in each cell: a share of 1 of few patients is not known without error.
    share = (some.value * worth + 0.5) / (worth + 1)
    rest = ((1 - others.value) * others_worth + 0.5) / (others_worth + 1)
    error = math.sqrt((1 - share) / (share * worth) + (1 - rest) / (rest * others_worth))
    centre = math.log(odds) + math.log(share) - math.log(rest)
    low, high = _logistic(centre - _Z95 * error), _logistic(centre + _Z95 * error)
    if not math.isnan(value):
        low, high = min(low, value), max(high, value)
    return Share(value, low, high, some.examinations + others.examinations)


def _logistic(value: float) -> float:
    return 0.5 * (1 + math.tanh(value / 2))
