"""What a site measured, as sums or as values: adding two sites' sums measures the sites together.

The metrics of the catalogue come out of them, of one site or merged over several. No prediction of
a single examination is needed to merge, so none has to leave a site.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.classification import ClassificationSums
from wardround.common.metrics.detection import DetectionSums
from wardround.common.metrics.pretraining import PretrainingSums
from wardround.common.metrics.regression import RegressionSums
from wardround.common.metrics.segmentation import SegmentationSums
from wardround.common.metrics.survival import SurvivalSums
from wardround.common.metrics.task_sums import MetricValue, TaskSums
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study

TASK_SUMS: dict[str, type[TaskSums]] = {
    "classification": ClassificationSums,
    "detection": DetectionSums,
    "segmentation": SegmentationSums,
    "regression": RegressionSums,
    "survival": SurvivalSums,
    "pretraining": PretrainingSums,
}


def sums_type(study: Study) -> type[TaskSums]:
    """Return the sums of a study's task."""
    return TASK_SUMS[study.study.task]


@dataclass(frozen=True, slots=True, eq=False)
class MetricSums:
    """Everything that is measured of one model on some examinations.

    Attributes:
        examinations: How many.
        loss: Sum of their losses.
        measured: What the study's task measures beside the loss.
        registered: What metrics of installed packages count, by name.
    """

    examinations: int
    loss: float
    measured: TaskSums
    registered: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


def empty_sums(study: Study, surfaces: bool = False) -> MetricSums:
    """Return the sums over no examination: what every merge leaves unchanged."""
    return MetricSums(0, 0.0, sums_type(study).empty(study, surfaces), _no_registered(study))


def _no_registered(study: Study) -> Mapping[str, NDArray[np.float64]]:
    if not study.package_metrics:
        return {}
    from wardround.common.metrics.registered import no_sums  # few studies name one

    return no_sums(study)


def merge(a: MetricSums, b: MetricSums) -> MetricSums:
    """Return the sums over the examinations of both.

    The order of merging does not matter. What only one side measured is kept where the other
    side has no examinations, and dropped where it has: a mean must be over everybody or not be.

    Raises:
        InputError: They were measured for different studies.
    """
    measured = a.measured.plus(b.measured, (a.examinations, b.examinations))
    registered = {
        name: sums + b.registered[name]
        for name, sums in a.registered.items()
        if name in b.registered
    }
    return MetricSums(a.examinations + b.examinations, a.loss + b.loss, measured, registered)


def metrics_of_task(study: Study) -> tuple[str, ...]:
    """Return the metrics that a study measures."""
    own = (name for name, entry in METRICS.items() if study.study.task in entry.tasks)
    return (*own, *study.package_metrics)


def has_surfaces(study: Study) -> bool:
    """Return whether a study has metrics of surfaces, which are measured once, at the end."""
    return any(METRICS[name].surface for name in metrics_of_task(study))


def summarise(sums: MetricSums, study: Study) -> tuple[MetricValue, ...]:
    """Return every metric of the study's task, each over all classes and then a class.

    Each task's file says how its metrics are defined. Surface metrics are absent where surfaces
    were not measured.
    """
    return tuple(value for name in metrics_of_task(study) for value in _values(name, sums, study))


def _values(metric: str, sums: MetricSums, study: Study) -> Iterator[MetricValue]:
    count = sums.examinations
    if metric == "loss":
        yield MetricValue("loss", "", sums.loss / count if count else math.nan, count)
    elif metric in study.package_metrics:
        if metric in sums.registered:
            from wardround.common.metrics.registered import registered_value

            yield registered_value(metric, sums.registered[metric], count, study)
    else:
        yield from sums.measured.summarise(metric, count, study)


@dataclass(frozen=True, slots=True)
class SiteValues:
    """One site's metrics over all classes, as few numbers: where tables would say too much.

    Tables of several sites merge into the metric of all patients. Numbers do not: a mean of sites'
    numbers is all that can be made of them.

    Attributes:
        examinations: How many are behind them, as the site rounds it: the weight of the site.
        values: By a key of METRICS; a metric whose cells are too small is absent.
    """

    examinations: int
    values: Mapping[str, float]


def values_of(part: MetricSums | SiteValues, study: Study) -> tuple[MetricValue, ...]:
    """Return what a site sent as metrics: each class's too, where it sent tables."""
    if isinstance(part, MetricSums):
        return summarise(part, study)
    return tuple(
        MetricValue(name, "", value, part.examinations) for name, value in part.values.items()
    )


def mean_of_sites(parts: list[MetricSums | SiteValues], study: Study) -> tuple[MetricValue, ...]:
    """Return each metric over all classes as the mean of the sites' values.

    A site weighs as many examinations as it says; one that does not say a metric has no part in it.
    This is not the metric of all patients together: an AUROC, say, compares no two sites' patients.
    """
    said = [(part.examinations, values_of(part, study)) for part in parts]
    found = []
    for name in metrics_of_task(study):
        pairs = [
            (weight, value.value)
            for weight, values in said
            for value in values
            if value.metric == name and not value.class_name and not math.isnan(value.value)
        ]
        total = sum(weight for weight, _ in pairs)
        if total:
            mean = sum(weight * value for weight, value in pairs) / total
            found.append(MetricValue(name, "", mean, total))
    return tuple(found)
