"""Metrics as a few numbers: what a site says where the tables behind them would say too much.

Tables of several sites merge into the metric of all patients. Numbers do not: a mean of sites'
numbers is all that can be made of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardround.common.errors import InputError
from wardround.common.fields import FieldError, Fields
from wardround.common.metrics.metric_value import MetricValue
from wardround.common.metrics.summary import metrics_of_task, summarise
from wardround.common.metrics.sums import MetricSums
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from flwr.app import MetricRecord

EXAMINATIONS = "examinations"  # a key beside the metrics' names


@dataclass(frozen=True, slots=True)
class SiteValues:
    """One site's metrics over all classes.

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


def values_to_record(values: SiteValues) -> "MetricRecord":
    """Return the values as the part of a message that carries them."""
    from flwr.app import MetricRecord

    return MetricRecord({EXAMINATIONS: values.examinations, **values.values})


def values_from_record(record: "MetricRecord", study: Study) -> SiteValues:
    """Return the values that :func:`values_to_record` wrote.

    Raises:
        InputError: They are not numbers that a site running this study could have measured.
    """
    known, fields = metrics_of_task(study), Fields(record, "values")
    if not set(record) <= {EXAMINATIONS, *known}:
        raise InputError(_UNREADABLE)
    try:
        values = {name: fields.number(name) for name in record if name != EXAMINATIONS}
        return SiteValues(fields.whole(EXAMINATIONS), values)
    except FieldError as error:
        msg = f"{_UNREADABLE} ({error})"
        raise InputError(msg) from None


_UNREADABLE = (
    "the site's metrics are not numbers of this study: "
    "run the same version of wardround and the same study on both sides."
)
