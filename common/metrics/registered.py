"""Metrics of installed packages: sums of bounded numbers, and one number in [0, 1] of them.

What leaves a site of such a metric is no more than of Wardround's own: at most 64 sums over
examinations of numbers that the site itself has cut to [0, 1] and rounded to 1/1024, or the one
number that follows from them. Private studies measure none.
"""

import math
from typing import cast

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import PackageError
from wardround.common.files.packages.importing import component
from wardround.common.files.packages.protocols import LARGEST_METRIC, Metric
from wardround.common.metrics.task_sums import MetricValue
from wardround.common.study.study import Study

STEPS = 1024
_PARTS = ("size", "count", "value")
Sums = NDArray[np.float64]


def metric_of(name: str, study: Study) -> Metric:
    """Return a metric that a study names as ``package:name``.

    Raises:
        PackageError: The package is not installed as the study names it, or it is no metric.
    """
    made = cast("type[Metric]", component("metrics", name, study.packages))
    try:
        metric = made()
        is_whole = all(callable(getattr(metric, part, None)) for part in _PARTS)
    except Exception as error:  # another's code fails in many ways
        msg = f"{name} cannot be made ({type(error).__name__}): tell its author."
        raise PackageError(msg) from None
    if not is_whole:
        msg = f"{name} lacks size, count or value, which a metric has: tell its author."
        raise PackageError(msg)
    return metric


def sizes(study: Study) -> dict[str, int]:
    """Return how many numbers each metric of a package counts, by name.

    Raises:
        PackageError: One counts none, or too many.
    """
    found = {}
    for name in study.package_metrics:
        size = _size(name, study)
        if type(size) is not int or not 1 <= size <= LARGEST_METRIC:
            msg = (
                f"{name} counts {size!r} numbers an examination: from 1 to {LARGEST_METRIC} may "
                "leave a site. Choose another metric, or fewer classes."
            )
            raise PackageError(msg)
        found[name] = size
    return found


def _size(name: str, study: Study) -> object:
    metric = metric_of(name, study)
    try:
        return metric.size(max(1, study.class_count))
    except Exception as error:  # another's code fails in many ways
        msg = f"{name} does not say what it counts ({type(error).__name__}): tell its author."
        raise PackageError(msg) from None


def no_sums(study: Study) -> dict[str, Sums]:
    """Return the sums over no examination."""
    return {name: np.zeros(size) for name, size in sizes(study).items()}


def registered_value(name: str, sums: Sums, examinations: int, study: Study) -> MetricValue:
    """Return a metric of sums; NaN where it is not defined, or its package does not say."""
    try:
        value = float(metric_of(name, study).value([float(one) for one in sums], examinations))
    except PackageError:
        raise
    except Exception:  # another's code fails in many ways
        value = math.nan
    bounded = min(max(value, 0.0), 1.0) if math.isfinite(value) else math.nan
    return MetricValue(name, "", bounded, examinations if math.isfinite(value) else 0)
