"""How far a value may be off only because so few patients were tested, from their number alone.

For values of which no predictions are kept: they leave out that two models saw the same patients.
"""

import math
from dataclasses import dataclass

from wardround.common.statistics.delong import hanley_mcneil_error
from wardround.common.statistics.interval import (
    Interval,
    log_interval,
    proportion_error,
    score_interval,
    unknown_interval,
)
from wardround.common.study.registry import METRICS
from wardround.simulations.run_files.folder import MetricRow

_LARGEST = 0.5  # standard error of what lies in [0, 1] (Popoviciu 1935)


@dataclass(frozen=True, slots=True)
class PatientCounts:
    """The test patients of one site.

    Attributes:
        total: All of them.
        by_class: How many have each class, in the study's order; empty if not known.
        images_each: Examinations a patient has, of the class where it is the most; at least 1.
    """

    total: int
    by_class: tuple[int, ...] = ()
    images_each: float = 1.0


def value_error(row: MetricRow, counts: PatientCounts) -> float:
    """Return the standard error of a metric over all classes, NaN where it cannot be told.

    An error that was measured with the value goes first. The unit is the patient: several images of
    one patient are taken for one image seen several times, and one patient alone says nothing of
    how patients differ. The classes of a mean AUROC are taken as independent, because each one's
    error comes from its own few patients. What lies between 0 and 1 has an error of one half at
    most, which is taken where nothing else is known.
    """
    if math.isnan(row.value):
        return math.nan
    error = math.nan
    if row.standard_error > 0 and counts.total != 1:
        error = row.standard_error * math.sqrt(counts.images_each)
    elif row.metric == "auroc":
        error = _macro_auroc_error(row.value, counts)
    elif row.metric == "accuracy":
        error = proportion_error(row.value, counts.total or row.support)
    entry = METRICS.get(row.metric)
    if entry is None or not entry.in_unit_interval:
        return error
    return _LARGEST if math.isnan(error) else min(error, _LARGEST)


def interval_without_patients(row: MetricRow, counts: PatientCounts) -> Interval:
    """Return the interval of a value of which no predictions are kept.

    One patient, or an error of one half, which says that nothing is known, has none.
    """
    error = value_error(row, counts)
    if counts.total < 2 or math.isnan(error) or error >= _LARGEST:
        return unknown_interval(row.value, counts.total)
    entry = METRICS.get(row.metric)
    make = score_interval if entry is None or entry.in_unit_interval else log_interval
    return make(row.value, error, counts.total - 1, counts.total)


def _macro_auroc_error(auroc: float, counts: PatientCounts) -> float:
    # A patient may be of both classes of a binary task; its two areas are one and the same.
    if len(counts.by_class) == 2:
        negatives, positives = counts.by_class
        return hanley_mcneil_error(auroc, positives, negatives)
    errors = [
        hanley_mcneil_error(auroc, count, max(counts.total - count, 1))
        for count in counts.by_class
        if count
    ]
    return math.hypot(*errors) / len(errors) if errors else math.nan
