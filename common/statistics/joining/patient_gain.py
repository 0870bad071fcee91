"""How much better one model is than another on the same patients, with its error: any metric.

A metric is written as its value and each patient's *influence* on it: how far the patient moves it
(the infinitesimal jackknife: Jaeckel 1972; for the area under the ROC curve it is the clustered
form of DeLong's placement values: Obuchowski, Biometrics 53, 1997). The influences of two models on
the same patients are subtracted, patient by patient, and the sum of their squares is the variance
of the gain. All examinations of a patient move together, so the unit is the patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.statistics.joining.worth_joining import Gain

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """A metric of one model on P patients.

    Attributes:
        value: NaN where it is not defined.
        influence: ``(P,)``, whose sum is 0.
        most: How far the value moves at most by one patient more, who is answered wholly right or
            wholly wrong; 0 where answers are so fine that two models hardly ever answer alike.
    """

    value: float
    influence: Floats
    most: float = 0.0


def mean_of(values: Floats, patients: Integers, counts: bool = False) -> Estimate:
    """Return the mean over examinations.

    Args:
        values: ``(N,)``; those that are NaN do not count.
        patients: ``(N,)`` whose examination it is, from 0.
        counts: Whether each value is 0 or 1.
    """
    held = np.isfinite(values)
    total, size = int(held.sum()), _patients(patients)
    if not total:
        return Estimate(np.nan, np.zeros(size))
    mean = float(values[held].mean())
    influence = _summed(np.where(held, values - mean, 0.0) / total, patients, size)
    present = len(np.unique(patients[held]))
    return Estimate(mean, influence, 1 / present if counts else 0.0)


def recall_of(right: Floats, held: Booleans, patients: Integers) -> Estimate:
    """Return the share of right answers among the examinations of a class.

    Args:
        right: ``(N,)`` 1 where the model is right, else 0.
        held: ``(N,)`` which examinations are of the class.
        patients: ``(N,)`` whose they are.
    """
    return mean_of(np.where(held, right, np.nan), patients, counts=True)


def f1_of(called: Booleans, held: Booleans, patients: Integers) -> Estimate:
    """Return F1 of one class: ``2 TP / (held + called)``.

    Args:
        called: ``(N,)`` which examinations the model says are of the class.
        held: ``(N,)`` which are.
    """
    size, both = _patients(patients), (called.astype(float) + held)
    total = float(both.sum())
    if not held.any():
        return Estimate(np.nan, np.zeros(size))
    hits = 2.0 * (called & held)
    value = float(hits.sum()) / total
    influence = _summed((hits - value * both) / total, patients, size)
    return Estimate(value, influence, 1 / len(np.unique(patients[held | called])))


def auroc_of(scores: Floats, held: Booleans, patients: Integers) -> Estimate:
    """Return the area under the ROC curve of one class against the rest; ties count one half.

    Args:
        scores: ``(N,)`` of the class.
        held: ``(N,)`` which examinations are of it.
        patients: ``(N,)``.
    """
    size = _patients(patients)
    if held.all() or not held.any():
        return Estimate(np.nan, np.zeros(size))
    positive, negative = scores[held], scores[~held]
    over = _placed(positive, negative)
    under = 1 - _placed(negative, positive)
    value = float(over.mean())
    moved = np.zeros(len(scores))
    moved[held] = (over - value) / len(positive)
    moved[~held] = (under - value) / len(negative)
    return Estimate(value, _summed(moved, patients, size))


def mean_of_estimates(parts: Sequence[Estimate]) -> Estimate:
    """Return the mean of those estimates that are defined, e.g. over the classes."""
    known = [part for part in parts if np.isfinite(part.value)]
    if not known:
        return Estimate(np.nan, np.zeros(len(parts[0].influence) if parts else 0))
    # The patients of two classes are other patients: what each may move adds up in squares.
    most = float(np.sqrt(np.sum([part.most**2 for part in known]))) / len(known)
    return Estimate(
        float(np.mean([part.value for part in known])),
        np.mean([part.influence for part in known], axis=0),
        most,
    )


def gain_of(
    first: Estimate, second: Estimate, strata: Integers | None = None, sign: int = 1
) -> Gain:
    """Return by how much the first model is better than the second on the same patients.

    Where answers are counts (right or wrong), two patients are added who are answered right by one
    model alone, one each way: that two models never differed on 20 patients does not mean that they
    never will (Bonett and Price, Statistics in Medicine 31, 2012).

    Args:
        strata: ``(P,)`` a class a patient, where the metric weighs classes and not patients: the
            spread within each is then what counts, and a rare class has few degrees of freedom.
        sign: -1 where lower is better.
    """
    moved = first.influence - second.influence
    size = len(moved)
    if size < 2:
        return Gain(sign * (first.value - second.value), np.nan, 0.0, size)
    groups = np.zeros(size, dtype=np.int64) if strata is None else strata
    variance, divisor = 0.0, 0.0
    for group in np.unique(groups):
        part = moved[groups == group]
        count = len(part)
        spread = float(np.square(part - part.mean()).sum()) * count / max(count - 1, 1)
        variance += spread
        divisor += spread**2 / max(count - 1, 1)
    freedom = size - 1.0 if not divisor else min(variance**2 / divisor, size - 1.0)
    most = max(first.most, second.most)
    error = float(np.sqrt(variance + 2 * most**2))
    return Gain(sign * (first.value - second.value), error, freedom, size)


def _patients(patients: Integers) -> int:
    return int(patients.max()) + 1 if len(patients) else 0


def _summed(moved: Floats, patients: Integers, size: int) -> Floats:
    return np.asarray(np.bincount(patients, weights=moved, minlength=size), dtype=np.float64)


def _placed(values: Floats, others: Floats) -> Floats:
    """Return which share of the others each value is above, ties one half."""
    ordered = np.sort(others)
    below = ordered.searchsorted(values, side="left")
    not_above = ordered.searchsorted(values, side="right")
    return np.asarray((below + not_above) / (2 * len(others)), dtype=np.float64)
