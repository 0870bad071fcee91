"""Which sums of evidence a study may name in ``evaluation.pack``."""

from collections import Counter
from collections.abc import Iterator

from wardround.common.errors import known_names
from wardround.common.study.plans.packs import MOST_CELLS, PACKS, cells_of
from wardround.common.study.plans.patient_privacy import is_measured
from wardround.common.study.plans.subgroups import groupings_of
from wardround.common.study.registry import TASKS
from wardround.common.study.study import Study


def pack_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule of packs that the study breaks."""
    named = study.evaluation.pack
    unknown = [name for name in named if name not in PACKS]
    for name in unknown:
        yield known_names("pack", name, PACKS)
    twice = [name for name, times in Counter(named).items() if times > 1]
    if twice:
        yield f"evaluation.pack names {', '.join(twice)} twice: name it once."
    if not named or unknown or study.study.task not in TASKS:
        return
    yield from _protected(study)
    yield from _fits_task(study)
    if "subgroups" in named:
        yield from _known_groups(study)
    if (cells := cells_of(study)) > MOST_CELLS:
        yield (
            f"the packs have {cells} numbers, and at most {MOST_CELLS} leave a site: lower "
            "evaluation.pack_bins, or name fewer subgroups."
        )


def _protected(study: Study) -> Iterator[str]:
    if study.statistics.ask:
        yield "evaluation.pack is of a trained model, and statistics.ask trains none: remove it."
    if study.privacy.mode == "patient":
        yield from _noised(study)
    if study.privacy.mode == "site":
        yield (
            "evaluation.pack with privacy.mode = 'site' would show single hospitals to whoever "
            "reads the results, which the mode promises not to: remove it."
        )


def _noised(study: Study) -> Iterator[str]:
    exact = [name for name in study.evaluation.pack if name != "intervals"]
    if exact:
        yield (
            f"evaluation.pack names {', '.join(exact)}, and no noise is made for these sums of "
            "patients who are promised it (privacy.mode = 'patient'): name 'intervals' alone, "
            "which is then one noised measurement of the test patients."
        )
    elif not is_measured(study, "test"):
        yield (
            "evaluation.pack names 'intervals', and privacy.test_epsilon = 0 or "
            "evaluation.test_fraction = 0 lets nothing be told of test patients: raise them, or "
            "remove it."
        )


def _fits_task(study: Study) -> Iterator[str]:
    named, task = study.evaluation.pack, study.task
    if not (task.classifies or task.dense):
        yield f"evaluation.pack is for classification and segmentation, not {study.study.task}."
    if study.data.labels.partial:
        yield (
            "evaluation.pack with data.labels.partial would count classes that a site has not "
            "looked for: remove it."
        )
    if "calibration" in named and (not task.classifies or study.data.multi_label):
        yield (
            "evaluation.pack names 'calibration', which is about the one class that a model names: "
            "remove it where each image may have several classes or a mask."
        )


def _known_groups(study: Study) -> Iterator[str]:
    groupings = [one for one in groupings_of(study) if not one.from_image]
    if not groupings:
        yield (
            "evaluation.pack names 'subgroups', and evaluation.subgroups names no column: name "
            "one there, e.g. ['sex', 'age']."
        )
    for one in groupings:
        if not one.groups:
            yield (
                f"evaluation.pack tells of known groups alone, and those of {one.name!r} are not "
                f"known: list its values in data.covariates, or give evaluation.bands.{one.name}."
            )
