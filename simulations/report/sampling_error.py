"""How far a value may be off only because so few patients were tested."""

import math
from dataclasses import dataclass

from wardround.simulations.run_files.folder import MetricRow

Z95 = 1.959964  # two-sided 95 % point of the normal distribution
_PROPORTIONS = ("accuracy", "balanced-accuracy", "f1")


@dataclass(frozen=True, slots=True)
class PatientCounts:
    """The test patients of one site.

    Attributes:
        total: All of them.
        by_class: How many have each class, in the study's order; empty if not known.
    """

    total: int
    by_class: tuple[int, ...] = ()


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
    weight = trials + Z95**2
    centre = (proportion * trials + Z95**2 / 2) / weight
    return math.sqrt(centre * (1 - centre) / weight)


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

    An error that was measured with the value goes first. The unit is the patient: several images
    of one patient are not independent. The classes of a mean AUROC are taken as independent,
    because each one's error comes from its own few patients.
    """
    if row.standard_error > 0:
        return row.standard_error
    if row.metric == "auroc":
        return _macro_auroc_error(row.value, counts)
    if row.metric in _PROPORTIONS:
        return proportion_error(row.value, counts.total or row.support)
    return math.nan  # e.g. Dice: its spread from patient to patient is not in one number


def _macro_auroc_error(auroc: float, counts: PatientCounts) -> float:
    # The two areas of a binary task are one and the same, so the second one is enough.
    classes = counts.by_class[1:] if len(counts.by_class) == 2 else counts.by_class
    errors = [
        auroc_error(auroc, count, counts.total - count)
        for count in classes
        if 0 < count < counts.total
    ]
    return math.hypot(*errors) / len(errors) if errors else math.nan
