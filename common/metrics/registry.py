"""The sums of each task, by the task's name in a study."""

from wardround.common.metrics.classification import ClassificationSums
from wardround.common.metrics.segmentation import SegmentationSums
from wardround.common.metrics.task_sums import TaskSums
from wardround.common.study.study import Study

TASK_SUMS: dict[str, type[TaskSums]] = {
    "classification": ClassificationSums,
    "segmentation": SegmentationSums,
}


def sums_type(study: Study) -> type[TaskSums]:
    """Return the sums of a study's task."""
    return TASK_SUMS[study.study.task]
