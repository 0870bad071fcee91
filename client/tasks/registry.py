"""The tasks a site can do, by the task's name in a study."""

from wardround.client.tasks.classification import Classification
from wardround.client.tasks.detection import Detection
from wardround.client.tasks.pretraining import Pretraining
from wardround.client.tasks.regression import Regression
from wardround.client.tasks.segmentation import Segmentation
from wardround.client.tasks.survival import Survival
from wardround.client.tasks.task import Task
from wardround.common.study.study import Study

TASKS: dict[str, Task] = {
    "classification": Classification(),
    "detection": Detection(),
    "segmentation": Segmentation(),
    "regression": Regression(),
    "survival": Survival(),
    "pretraining": Pretraining(),
}


def task_of(study: Study) -> Task:
    """Return what does a study's task."""
    return TASKS[study.study.task]
