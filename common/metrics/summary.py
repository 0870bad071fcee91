"""Metrics of the catalogue, out of sums that were measured at one site or merged over several."""

import math
from collections.abc import Iterator

from wardround.common.metrics.metric_value import MetricValue
from wardround.common.metrics.sums import MetricSums
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study


def metrics_of_task(study: Study) -> tuple[str, ...]:
    """Return the metrics that a study measures."""
    return tuple(name for name, entry in METRICS.items() if study.study.task in entry.tasks)


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
    else:
        yield from sums.measured.summarise(metric, count, study)
