"""By what a study may group its patients."""

from collections import Counter
from collections.abc import Iterator

from wardround.common.study.plans.subgroups import QUALITIES, QUALITY
from wardround.common.study.study import Study

_NO_GROUPS = ("patient", "image", "label", "mask", "split", "site", "box")


def subgroup_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule of subgroups that the study breaks."""
    yield from _named_well(study)
    yield from _banded_well(study)


def _named_well(study: Study) -> Iterator[str]:
    named = study.evaluation.subgroups
    twice = [name for name, times in Counter(named).items() if times > 1]
    if twice:
        yield f"evaluation.subgroups names {', '.join(twice)} twice: name it once."
    for name in named:
        if name in _NO_GROUPS:
            yield (
                f"evaluation.subgroups cannot name {name!r}, a column with a meaning of its own: "
                "name a covariate, another column of the manifest, scanner or quality."
            )
        elif name in QUALITIES:
            yield f"evaluation.subgroups names {name!r}: name 'quality', which has all three."
    if QUALITY in named and study.data.kind == "table":
        yield "evaluation.subgroups names 'quality', and a table has no images: remove it."


def _banded_well(study: Study) -> Iterator[str]:
    named = study.evaluation.subgroups
    listed = {covariate.name for covariate in study.data.covariates if covariate.values}
    for name, bounds in study.evaluation.bands.items():
        if name not in named or name == QUALITY:
            yield (
                f"evaluation.bands.{name} is for nothing that evaluation.subgroups groups by: add "
                f"{name!r} there, or remove the bands."
            )
        elif name in listed:
            yield f"evaluation.bands.{name} is for a number, and {name} has values: remove it."
        if list(bounds) != sorted(set(bounds)):
            yield f"evaluation.bands.{name} = {list(bounds)} does not ascend: sort the ends."
