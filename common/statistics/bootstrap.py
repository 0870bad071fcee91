"""The bootstrap whose unit is the patient: for what has no formula, and to hold formulas against.

Patients are drawn with replacement, each with all of their examinations (the cluster bootstrap:
Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8).
"""

import math

import numpy as np
from numpy.typing import NDArray

from wardround.common.statistics.interval import LEVEL, Interval, unknown_interval
from wardround.common.statistics.precision_recall import (
    average_precision,
    weighted_average_precision,
)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
DRAWS = 1_000
_SEED = 0
_MOST_AT_ONCE = 2_000_000  # weights in memory


def patient_weights(patients: int, draws: int = DRAWS, seed: int = _SEED) -> Floats:
    """Return how often each of P patients was drawn, ``(draws, P)``; each row adds up to P."""
    generator = np.random.default_rng(seed)
    shares = np.full(patients, 1 / patients)
    return generator.multinomial(patients, shares, size=draws).astype(np.float64)


def bootstrap_interval(
    value: float, drawn: Floats, patients: int, level: float = LEVEL
) -> Interval:
    """Return a value with the percentile interval of ``(B,)`` drawn values; NaN ones are left out.

    The interval is unknown for fewer than two patients, or where fewer than half of the draws have
    a value.
    """
    known = drawn[~np.isnan(drawn)]
    if patients < 2 or math.isnan(value) or 2 * len(known) < len(drawn):
        return unknown_interval(value, patients)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    error = float(known.std(ddof=1))
    return Interval(value, float(low), float(high), error, patients - 1.0, patients)


def average_precision_interval(
    scores: Floats,
    labels: Flags,
    patients: NDArray[np.int64],
    level: float = LEVEL,
    draws: int = DRAWS,
) -> Interval:
    """Return the average precision with its interval, by drawing patients.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)`` which are positive.
        patients: ``(N,)`` which patient each is of.
        level: Of the interval.
        draws: How many.
    """
    value = average_precision(scores, labels)
    _, numbers = np.unique(patients, return_inverse=True)
    count = int(numbers.max()) + 1 if len(numbers) else 0
    if count < 2 or math.isnan(value):
        return unknown_interval(value, count)
    weights = patient_weights(count, draws)
    step = max(1, _MOST_AT_ONCE // max(1, len(scores)))
    parts = [
        weighted_average_precision(scores, labels, weights[start : start + step][:, numbers])
        for start in range(0, draws, step)
    ]
    return bootstrap_interval(value, np.concatenate(parts), count, level)
