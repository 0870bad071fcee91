"""How far a value may be off only because so few patients were tested."""

import math
from dataclasses import dataclass

from wardround.common.study.registry import METRICS
from wardround.simulations.run_files.folder import MetricRow

Z95 = 1.959964  # two-sided 95 % point of the normal distribution
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


def proportion_error(proportion: float, trials: int) -> float:
    """Return the standard error of a proportion.

    The proportion is first drawn towards one half by two successes and two failures (Agresti and
    Coull, The American Statistician 52, 1998): 10 right out of 10 is not known without error.

    Args:
        proportion: In [0, 1].
        trials: How many were counted; NaN is returned for none.
    """
    if trials < 1 or math.isnan(proportion):
        return math.nan
    centre = (proportion * trials + Z95**2 / 2) / (trials + Z95**2)
    return math.sqrt(centre * (1 - centre) / trials)


def auroc_error(auroc: float, positives: int, negatives: int) -> float:
    """Return the standard error of an area under the ROC curve.

    Hanley and McNeil, Radiology 143, 1982, equations 1 and 2. That formula says 0 for an area
    of exactly 1, so the area is kept half a patient of the smaller group away from 0 and 1.

    Args:
        auroc: In [0, 1].
        positives: Patients with the class; NaN is returned for none.
        negatives: Patients without it; NaN is returned for none.
    """
    if min(positives, negatives) < 1 or math.isnan(auroc):
        return math.nan
    edge = 0.5 / min(positives, negatives)
    area = min(max(auroc, edge), 1 - edge)
    both_positive = area / (2 - area)
    both_negative = 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area)
        + (positives - 1) * (both_positive - area**2)
        + (negatives - 1) * (both_negative - area**2)
    ) / (positives * negatives)
    return math.sqrt(variance)


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
    if entry is None or not entry.higher_is_better:
        return error
    return _LARGEST if math.isnan(error) else min(error, _LARGEST)


def _macro_auroc_error(auroc: float, counts: PatientCounts) -> float:
    # A patient may be of both classes of a binary task; its two areas are one and the same.
    if len(counts.by_class) == 2:
        negatives, positives = counts.by_class
        return auroc_error(auroc, positives, negatives)
    errors = [
        auroc_error(auroc, count, max(counts.total - count, 1))
        for count in counts.by_class
        if count
    ]
    return math.hypot(*errors) / len(errors) if errors else math.nan
