"""What a site measured, as sums: adding two sites' sums measures the sites together.

No prediction of a single examination is needed to merge, so none has to leave a site.
"""

from dataclasses import dataclass

from wardround.common.metrics.registry import sums_type
from wardround.common.metrics.task_sums import TaskSums
from wardround.common.study.study import Study


@dataclass(frozen=True, slots=True, eq=False)
class MetricSums:
    """Everything that is measured of one model on some examinations.

    Attributes:
        examinations: How many.
        loss: Sum of their losses.
        measured: What the study's task measures beside the loss.
    """

    examinations: int
    loss: float
    measured: TaskSums


def empty_sums(study: Study, surfaces: bool = False) -> MetricSums:
    """Return the sums over no examination: what every merge leaves unchanged."""
    return MetricSums(0, 0.0, sums_type(study).empty(study, surfaces))


def merge(a: MetricSums, b: MetricSums) -> MetricSums:
    """Return the sums over the examinations of both.

    The order of merging does not matter. What only one side measured is kept where the other
    side has no examinations, and dropped where it has: a mean must be over everybody or not be.

    Raises:
        InputError: They were measured for different studies.
    """
    measured = a.measured.plus(b.measured, (a.examinations, b.examinations))
    return MetricSums(a.examinations + b.examinations, a.loss + b.loss, measured)
