"""What a study may say of acting on its model: the operating point and the prevalence."""

import math
from collections.abc import Iterator

from wardround.common.errors import known_names
from wardround.common.study.registry import tasks_that
from wardround.common.study.study import Study


def decision_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule of decisions that the study breaks."""
    point, prevalence = study.evaluation.operating_point, study.evaluation.prevalence
    for key, given in (("operating_point", point is not None), ("prevalence", bool(prevalence))):
        if given and not study.task.classifies:
            yield f"evaluation.{key} is for {tasks_that('classifies')}: remove it."
    if point is not None:
        yield from _one_aim(study)
    if prevalence and study.task.classifies:
        yield from _prevalence_fits(study)


def _one_aim(study: Study) -> Iterator[str]:
    point = study.evaluation.operating_point
    named = [] if point is None else [v for v in (point.sensitivity, point.specificity) if v]
    if len(named) != 1:
        yield (
            f"evaluation.operating_point names {'both' if named else 'neither'} of sensitivity and "
            "specificity: one threshold reaches one of them; name one, as { sensitivity = 0.9 }."
        )


def _prevalence_fits(study: Study) -> Iterator[str]:
    prevalence, classes = study.evaluation.prevalence, study.data.classes
    for name in prevalence:
        if name not in classes:
            yield f"evaluation.prevalence: {known_names('class', name, classes)}"
    if study.data.multi_label:
        return
    if len(classes) == 2 and classes[0] in prevalence:
        yield (
            f"evaluation.prevalence names {classes[0]!r}: of two classes the threshold is the "
            f"second one's; give the prevalence of {classes[1]!r}."
        )
    total = math.fsum(prevalence.values())
    if total > 1:
        yield (
            f"evaluation.prevalence adds up to {total:g}, and each image is of one class: make "
            "the sum 1 or less."
        )
