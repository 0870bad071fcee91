"""The pack "calibration": how often the class that a model names is right, by its score."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.packs.ratios import STEP, weighted
from wardround.common.metrics.task_sums import (
    Arrays,
    Counts,
    Sums,
    check_same_shape,
    counts_of,
    refuse,
    sums_of,
)
from wardround.common.study.plans.packs import INVERSE_TEMPERATURES
from wardround.common.study.study import Study

_MOST = 2**40
_MOST_PATIENTS = 10**9
MARGIN = 30.0  # logits further below the largest one count as this far below, where cells are kept
_LARGEST = 1e6  # of a mean slope or bend


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationPack:
    """Of a site's test patients the named class's score, and of its validation patients a fit.

    Attributes:
        counts: ``(2, bins)`` test examinations whose named class is wrong, and is right, by score.
        scores: ``(2, bins)`` their mean score; 0 where there are none.
        patients: ``(1,)`` validation patients of the fit; 0 where too few.
        fit: ``(T, 2)`` at each of INVERSE_TEMPERATURES the first and the second derivative of the
            loss by the inverse temperature: sums over a patient's examinations, the mean over
            patients.
    """

    counts: Counts
    scores: Sums
    patients: Counts
    fit: Sums

    @classmethod
    def empty(cls, study: Study) -> "CalibrationPack":
        """Return the pack of nobody."""
        shape = (2, study.evaluation.pack_bins)
        fit = np.zeros((len(INVERSE_TEMPERATURES), 2))
        counts = np.zeros(shape, dtype=np.int64)
        return cls(counts, np.zeros(shape), np.zeros(1, dtype=np.int64), fit)

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], study: Study
    ) -> "CalibrationPack":
        """Return a pack that came, of the names, shapes and types of :meth:`empty`.

        Raises:
            InputError: No patients can give it.
        """
        counts, scores = counts_of(arrays, "counts"), sums_of(arrays, "scores")
        patients, fit = counts_of(arrays, "patients"), sums_of(arrays, "fit")
        if (counts < 0).any() or (counts > _MOST).any() or counts.sum() > _MOST:
            refuse("counts", "counts fewer than none, or more than there are")
        if ((scores < 0) | (scores > 1)).any() or (scores[counts == 0] != 0).any():
            refuse("scores", "is no mean of scores")
        if not all(_lie_within(*side) for side in zip(counts, scores, strict=True)):
            refuse("scores", "has a mean that lies beyond the next cell")
        if not 0 <= patients[0] <= _MOST_PATIENTS or (patients[0] == 0 and fit.any()):
            refuse("patients", "counts fewer than nobody, or more than there are")
        if (fit[:, 1] < 0).any() or (np.abs(fit) > _LARGEST).any():
            refuse("fit", "is no bend of a convex loss")
        if (np.diff(fit[:, 0]) < -2 * STEP).any():  # convex: the slope rises
            refuse("fit", "has a slope that falls, which that of a convex loss does not")
        return cls(counts, scores, patients, fit)

    def to_arrays(self) -> Arrays:
        """Return it as it travels."""
        return {
            "counts": self.counts,
            "scores": self.scores,
            "patients": self.patients,
            "fit": self.fit,
        }

    def plus(self, other: "CalibrationPack") -> "CalibrationPack":
        """Return the pack of both sites' patients.

        Raises:
            InputError: They are of two studies.
        """
        check_same_shape(self.counts, other.counts)
        shape = self.counts.shape
        scores = weighted(
            self.counts.reshape(-1),
            self.scores.reshape(-1, 1),
            other.counts.reshape(-1),
            other.scores.reshape(-1, 1),
        ).reshape(shape)
        fit = weighted(
            self.patients, self.fit.reshape(1, -1), other.patients, other.fit.reshape(1, -1)
        ).reshape(self.fit.shape)
        return CalibrationPack(
            self.counts + other.counts, scores, self.patients + other.patients, fit
        )


def _lie_within(counts: Counts, scores: Sums) -> bool:
    """Return whether each told mean lies between the told bins on both sides of its own."""
    places, bins = np.flatnonzero(counts), len(counts)
    low = np.concatenate([[0], places[:-1] + 1])[: len(places)] / bins
    high = np.concatenate([places[1:], [bins]])[: len(places)] / bins
    told = scores[places]
    return bool(((told >= low - STEP) & (told <= high + STEP)).all())


@dataclass(frozen=True, slots=True)
class ReliabilityRow:
    """The examinations whose named class has a score in a bin.

    Attributes:
        low: Least score of the bin.
        high: Greatest.
        count: How many examinations.
        score: Their mean score.
        right: The share whose named class is right.
    """

    low: float
    high: float
    count: int
    score: float
    right: float


def reliability(pack: CalibrationPack, bins: int = 10) -> tuple[ReliabilityRow, ...]:
    """Return the reliability table in so many bins of equal width; empty ones are left out."""
    cells = pack.counts.shape[1]
    middle = (np.arange(cells) + 0.5) / cells
    rows = []
    for place in range(bins):
        low, high = place / bins, (place + 1) / bins
        inside = (middle >= low) & (middle < high)
        counts, scores = pack.counts[:, inside], pack.scores[:, inside]
        total = int(counts.sum())
        if total:
            mean = float((counts * scores).sum() / total)
            rows.append(ReliabilityRow(low, high, total, mean, float(counts[1].sum() / total)))
    return tuple(rows)


def calibration_error(pack: CalibrationPack, bins: int) -> float:
    """Return the expected calibration error of the named class (Guo et al. 2017); NaN of nothing.

    Exact where ``bins`` divides the pack's bins and nothing was coarsened.
    """
    rows = reliability(pack, bins)
    total = sum(one.count for one in rows)
    if not total:
        return math.nan
    return sum(one.count * abs(one.right - one.score) for one in rows) / total


def temperature(pack: CalibrationPack) -> float:
    """Return the temperature with the least loss; NaN where it is outside the fit's range.

    The slope of the loss rises with the inverse temperature, so it is 0 once. Between two of the
    told inverse temperatures it is the cubic through their slopes and bends (Hermite), of which the
    root is found by halving.
    """
    if not pack.patients[0]:
        return math.nan
    slopes, bends = pack.fit[:, 0], pack.fit[:, 1]
    inverse = np.array(INVERSE_TEMPERATURES)
    above = np.flatnonzero((slopes[:-1] < 0) & (slopes[1:] >= 0))
    if not len(above):
        return math.nan
    place = int(above[0])
    width = float(inverse[place + 1] - inverse[place])
    ends = (float(slopes[place]), float(slopes[place + 1]))
    rates = (float(bends[place]) * width, float(bends[place + 1]) * width)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _hermite(middle, ends, rates) < 0:
            low = middle
        else:
            high = middle
    return 1 / (float(inverse[place]) + (low + high) / 2 * width)


def _hermite(t: float, ends: tuple[float, float], rates: tuple[float, float]) -> float:
    return (
        (2 * t**3 - 3 * t**2 + 1) * ends[0]
        + (t**3 - 2 * t**2 + t) * rates[0]
        + (3 * t**2 - 2 * t**3) * ends[1]
        + (t**3 - t**2) * rates[1]
    )
