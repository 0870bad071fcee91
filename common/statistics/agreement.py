"""Whether two measurements agree: of a quantity (Bland and Altman 1986, 1999), or of a class."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NORMAL = 1.959963984540054  # 97.5 % of a normal distribution lie below


@dataclass(frozen=True, slots=True)
class Bound:
    """A number with its 95 % interval; NaN where that is not known."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Bias and limits of agreement, in the unit of the measurements.

    Attributes:
        bias: Mean of the differences.
        lower, upper: Between these lie 95 % of differences, if they are normal.
        patients: The intervals' unit.
        pairs: Measurements.
    """

    bias: Bound
    lower: Bound
    upper: Bound
    patients: int
    pairs: int


def bland_altman(differences: NDArray[np.float64], patients: NDArray[np.int64]) -> Agreement:
    """Return bias and limits of agreement, with intervals whose unit is the patient.

    With one pair a patient the intervals are those of Bland and Altman 1999 (``s / sqrt(n)`` and
    ``s sqrt(1 / n + z^2 / (2 (n - 1)))``, Student's t). With several, patients are left out one
    after the other (the jackknife), so that pairs of one patient do not count as many patients.

    Args:
        differences: ``(N,)`` one measurement less the other.
        patients: ``(N,)`` whose each is.

    Raises:
        ValueError: There is no difference, or one that is no number.
    """
    from scipy.special import stdtrit

    if not len(differences) or not np.isfinite(differences).all():
        msg = f"{len(differences)} differences, all of them numbers: give at least one."
        raise ValueError(msg)
    groups = [differences[patients == patient] for patient in np.unique(patients)]
    count, values = len(groups), _three(differences)
    if count < 2:
        bounds = [Bound(value, math.nan, math.nan) for value in values]
        return Agreement(bounds[0], bounds[1], bounds[2], count, len(differences))
    errors = _errors(differences) if count == len(differences) else _jackknifed(groups)
    t = float(stdtrit(count - 1, 0.975))
    bias, lower, upper = (
        Bound(value, value - t * error, value + t * error)
        for value, error in zip(values, errors, strict=True)
    )
    return Agreement(bias, lower, upper, count, len(differences))


def _three(differences: NDArray[np.float64]) -> tuple[float, float, float]:
    bias = float(differences.mean())
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else math.nan
    return bias, bias - _NORMAL * spread, bias + _NORMAL * spread


def _errors(differences: NDArray[np.float64]) -> tuple[float, float, float]:
    count, spread = len(differences), float(differences.std(ddof=1))
    limit = spread * math.sqrt(1 / count + _NORMAL**2 / (2 * (count - 1)))
    return spread / math.sqrt(count), limit, limit


def _jackknifed(groups: list[NDArray[np.float64]]) -> tuple[float, ...]:
    count = len(groups)
    without = np.array(
        [
            _three(np.concatenate([one for place, one in enumerate(groups) if place != left]))
            for left in range(count)
        ]
    )
    deviations = without - without.mean(axis=0)
    return tuple(np.sqrt((count - 1) / count * (deviations**2).sum(axis=0)).tolist())


def cohen_kappa(first: NDArray[np.int64], second: NDArray[np.int64]) -> Bound:
    """Return how far two readers agree beyond chance (Cohen 1960), with its 95 % interval.

    The error is that of Fleiss, Cohen and Everitt 1969, equation 13; cases are taken as
    independent. NaN where both say one class alone: then nothing tells agreement from chance.

    Args:
        first: ``(N,)`` classes that one reader says.
        second: ``(N,)`` those of the other, of the same cases.

    Raises:
        ValueError: There is no case, or they differ in number.
    """
    if not len(first) or len(first) != len(second):
        msg = f"{len(first)} and {len(second)} answers: give two for each case, at least one."
        raise ValueError(msg)
    _, places = np.unique(np.concatenate([first, second]), return_inverse=True)
    rows, columns = places[: len(first)], places[len(first) :]
    classes = int(places.max()) + 1
    shares = np.bincount(rows * classes + columns, minlength=classes**2) / len(first)
    table = shares.reshape(classes, classes)
    own, other = table.sum(axis=1), table.sum(axis=0)
    seen, chance = float(np.trace(table)), float(own @ other)
    if chance >= 1:
        return Bound(math.nan, math.nan, math.nan)
    kappa = (seen - chance) / (1 - chance)
    margins = own[np.newaxis, :] + other[:, np.newaxis]
    diagonal = np.diag(table) * (1 - np.diag(margins) * (1 - kappa)) ** 2
    aside = (table * margins**2).sum() - float(np.diag(table) @ np.diag(margins) ** 2)
    spread = diagonal.sum() + (1 - kappa) ** 2 * aside - (kappa - chance * (1 - kappa)) ** 2
    error = math.sqrt(max(float(spread), 0.0) / len(first)) / (1 - chance)
    return Bound(kappa, kappa - _NORMAL * error, min(kappa + _NORMAL * error, 1.0))
