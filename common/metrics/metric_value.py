"""One metric as a number, and the means that metrics are made of.

The value over all classes has class name ""; a value that is not defined is NaN with support 0.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wardround.common.metrics.task_sums import Counts, Sums


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One metric of one class, or over all classes.

    Attributes:
        metric: A key of the catalogue's METRICS.
        class_name: One class, or "" over all classes.
        value: NaN where it is not defined.
        support: Examinations (for a segmentation: cases) behind the value. Of one class: those
            of the class; over all classes of a segmentation: those of the most frequent class.
        error_bound: Largest possible error from binning scores; 0 where exact.
        standard_error: Sampling error of a mean over cases; 0 where it is not computed.
    """

    metric: str
    class_name: str
    value: float
    support: int
    error_bound: float = 0.0
    standard_error: float = 0.0


def mean_over(metric: str, values: Sums, support: int) -> MetricValue:
    """Return the mean over the classes whose value is defined, of ``(K,)`` values."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return MetricValue(metric, "", math.nan, 0)
    return MetricValue(metric, "", float(defined.mean()), support)


def per_class(
    metric: str,
    names: tuple[str, ...],
    values: Sums,
    support: Counts,
    bounds: Sums | None = None,
) -> Iterator[MetricValue]:
    """Yield the value of each of K classes, from ``(K,)`` values, supports and error bounds."""
    bounds = np.zeros(len(names)) if bounds is None else bounds
    for name, value, count, bound in zip(names, values, support, bounds, strict=True):
        yield MetricValue(metric, name, float(value), int(count), float(bound))


def divide(numerator: Counts | Sums, denominator: Counts | Sums) -> Sums:
    """Return the quotient, NaN where the denominator is 0."""
    undefined = np.full(np.shape(denominator), math.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)
