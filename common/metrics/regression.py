"""How a regression is measured: moments that add up, in the unit of the outcome's range.

Estimates are cut to the range, so that every examination adds numbers between 0 and 1. Definitions,
over N examinations with truth y and estimate p:

- mae: ``sum |p - y| / N``; rmse: ``sqrt(sum (p - y)^2 / N)``; both in the outcome's unit.
- r2: ``1 - sum (p - y)^2 / sum (y - mean y)^2``, the coefficient of determination.
- calibration-error: over bins of equal width of the estimate, the mean of how far the mean estimate
  lies from the mean truth, weighted by the examinations of the bin; in the outcome's unit.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.task_sums import (
    Arrays,
    Counts,
    MetricValue,
    Sums,
    TaskSums,
    added,
    counts_of,
    no_counts,
    refuse,
    sums_of,
)
from wardround.common.study.study import Study

BINS = 20  # of the estimate, over the range
# Places in the moments.
DISTANCE, SQUARE, FOURTH, TRUTH, TRUTH_SQUARE, ESTIMATE, ESTIMATE_SQUARE, PRODUCT = range(8)
MOMENTS = 8
_ROUNDING = 1e-6  # of sums that another machine added in another order


@dataclass(frozen=True, slots=True)
class CalibrationLine:
    """The straight line of the truth over the estimate: slope 1 and intercept 0 are best.

    Attributes:
        slope: Below 1 where the estimates are spread too widely; NaN where all are alike.
        intercept: In the outcome's unit.
    """

    slope: float
    intercept: float


@dataclass(frozen=True, slots=True, eq=False)
class RegressionSums:
    """Sums over examinations; y and p run from 0 at the range's low end to 1 at its high end.

    Attributes:
        moments: ``(8,)`` sums of ``|e|``, ``e^2``, ``e^4``, ``y``, ``y^2``, ``p``, ``p^2`` and
            ``p y``, where ``e = p - y``.
        binned: ``(BINS,)`` examinations by their estimate.
        binned_truth: ``(BINS,)`` sums of y in each bin.
        binned_estimate: ``(BINS,)`` sums of p in each bin.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()

    moments: Sums
    binned: Counts
    binned_truth: Sums
    binned_estimate: Sums

    @classmethod
    def empty(cls, study: Study, surfaces: bool) -> "RegressionSums":
        """Return the sums over no examination; a regression has no surfaces."""
        return cls(np.zeros(MOMENTS), no_counts(BINS), np.zeros(BINS), np.zeros(BINS))

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], examinations: int
    ) -> "RegressionSums":
        """Return the sums that came as arrays, after checking that N examinations can give them.

        Raises:
            InputError: They cannot.
        """
        moments = sums_of(arrays, "moments")
        sums = cls(
            moments,
            counts_of(arrays, "binned"),
            sums_of(arrays, "binned_truth"),
            sums_of(arrays, "binned_estimate"),
        )
        sums._check(examinations)
        return sums

    def _check(self, examinations: int) -> None:
        most, moments = examinations + _ROUNDING * (1 + examinations), self.moments
        if int(self.binned.sum()) != examinations:
            refuse("binned", f"does not count the {examinations} examinations")
        if (moments > most).any():
            refuse("moments", f"holds a sum above that of {examinations} examinations")
        slack = _ROUNDING * (1 + examinations)
        for mean, square in (
            (DISTANCE, SQUARE),
            (SQUARE, FOURTH),
            (TRUTH, TRUTH_SQUARE),
            (ESTIMATE, ESTIMATE_SQUARE),
        ):
            # Of numbers between 0 and 1: (sum x)^2 / N <= sum x^2 <= sum x.
            least = moments[mean] ** 2 / examinations if examinations else 0.0
            if not least - slack <= moments[square] <= moments[mean] + slack:
                refuse("moments", "holds a sum of squares that no numbers from 0 to 1 have")
        spread = moments[TRUTH_SQUARE] + moments[ESTIMATE_SQUARE] - 2 * moments[PRODUCT]
        if abs(spread - moments[SQUARE]) > slack:
            refuse("moments", "holds squared distances that are not those of its other sums")
        for name, place in (("binned_truth", TRUTH), ("binned_estimate", ESTIMATE)):
            binned = self.binned_truth if place == TRUTH else self.binned_estimate
            if (binned > self.binned + slack).any() or abs(binned.sum() - moments[place]) > slack:
                refuse(name, "does not add up to the sums over all examinations")

    def to_arrays(self) -> Arrays:
        """Return the sums by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def plus(self, other: TaskSums, examinations: tuple[int, int]) -> "RegressionSums":
        """Return the sums over the examinations of both.

        Raises:
            InputError: They were measured for different studies.
        """
        return added(self, other)

    def summarise(self, metric: str, examinations: int, study: Study) -> Iterator[MetricValue]:
        """Yield a metric, as the module defines it, in the outcome's unit."""
        if not examinations:
            yield MetricValue(metric, "", math.nan, 0)
            return
        value, error = _VALUES[metric](self, examinations)
        scale = 1.0 if metric == "r2" else study.outcome.width
        support = 0 if math.isnan(value) else examinations
        yield MetricValue(
            metric, "", value * scale, support, standard_error=error * scale if support else 0.0
        )

    def cells_behind(self, metric: str) -> Counts:
        """Return ``(1,)``: all examinations, for a regression has no classes."""
        return np.array([self.binned.sum()], dtype=np.int64)


def count_estimates(truth: Sums, estimates: Sums) -> RegressionSums:
    """Return the sums over N examinations.

    Args:
        truth: ``(N,)`` in [0, 1], from the low to the high end of the range.
        estimates: ``(N,)``, cut to [0, 1] here.
    """
    y, p = np.clip(truth, 0.0, 1.0), np.clip(estimates, 0.0, 1.0)
    e = np.abs(p - y)
    moments = np.array([e, e**2, e**4, y, y**2, p, p**2, p * y]).sum(axis=1)
    place = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    return RegressionSums(
        moments,
        np.bincount(place, minlength=BINS),
        np.bincount(place, weights=y, minlength=BINS).astype(np.float64),
        np.bincount(place, weights=p, minlength=BINS).astype(np.float64),
    )


def calibration_line(sums: RegressionSums, examinations: int, study: Study) -> CalibrationLine:
    """Return the least-squares line of the truth over the estimate."""
    m = sums.moments / examinations if examinations else np.full(MOMENTS, math.nan)
    variance = m[ESTIMATE_SQUARE] - m[ESTIMATE] ** 2
    if not variance > 1e-12:
        return CalibrationLine(math.nan, math.nan)
    slope = float((m[PRODUCT] - m[ESTIMATE] * m[TRUTH]) / variance)
    outcome = study.outcome
    means = [outcome.low + outcome.width * float(m[place]) for place in (TRUTH, ESTIMATE)]
    return CalibrationLine(slope, means[0] - slope * means[1])


def _mae(sums: RegressionSums, count: int) -> tuple[float, float]:
    mean, square = sums.moments[DISTANCE] / count, sums.moments[SQUARE] / count
    return float(mean), _error(square - mean**2, count)


def _rmse(sums: RegressionSums, count: int) -> tuple[float, float]:
    square, fourth = sums.moments[SQUARE] / count, sums.moments[FOURTH] / count
    value = math.sqrt(max(float(square), 0.0))
    # The delta method: the root moves by half of the mean square over itself.
    return value, _error(fourth - square**2, count) / (2 * value) if value else 0.0


def _r2(sums: RegressionSums, count: int) -> tuple[float, float]:
    moments = sums.moments / count
    spread = float(moments[TRUTH_SQUARE] - moments[TRUTH] ** 2)
    # Numbers that are all alike have no spread to explain, and rounding leaves some.
    value = 1 - float(moments[SQUARE]) / spread if spread > 1e-12 else math.nan
    return value, 0.0


def _calibration_error(sums: RegressionSums, count: int) -> tuple[float, float]:
    total = float(sums.binned.sum())
    if not total:
        return math.nan, 0.0
    return float(np.abs(sums.binned_estimate - sums.binned_truth).sum() / total), 0.0


def _error(variance: float, count: int) -> float:
    return math.sqrt(max(float(variance), 0.0) / (count - 1)) if count > 1 else 0.0


_VALUES = {"mae": _mae, "rmse": _rmse, "r2": _r2, "calibration-error": _calibration_error}
