"""What a study that goes on from another one may ask for, and why not the rest."""

from collections.abc import Iterator

from wardround.common.study.plans.strategy import CONTINUAL_OBJECTIVES, PRESETS, plan_from
from wardround.common.study.sections.continual import ContinualSection
from wardround.common.study.study import Study

_TERMS = tuple(CONTINUAL_OBJECTIVES)


def continual_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule of ``[continual]`` that is broken."""
    if (chosen := study.federation.objective) in CONTINUAL_OBJECTIVES.values():
        method = next(m for m, name in CONTINUAL_OBJECTIVES.items() if name == chosen)
        yield (
            f"federation.objective = {chosen!r} needs the model that a study goes on from: remove "
            f"it, and set continual.method = {method!r}."
        )
    held = study.continual
    if held is None:
        return
    for rule in (_parent_is_whole, _numbers_are_read, _replays, _fits_privacy, _fits_the_rest):
        yield from rule(study, held)


def _parent_is_whole(study: Study, held: ContinualSection) -> Iterator[str]:
    if (held.parent is None) != (held.model is None):
        yield (
            "continual.parent and continual.model name one model, and only one of them is there: "
            "have 'wardround study continue' write both."
        )
    if held.parent is None:
        if held.method in _TERMS:
            yield (
                f"continual.method = {held.method!r} holds on to a parent's model, and "
                "continual.parent names none: have 'wardround study continue' write it."
            )
        if held.classes is not None:
            yield "continual.classes is of a parent's model, and there is none: remove it."
        return
    if study.model.weights_sha256 is None:
        yield (
            "continual.parent is set and model.weights_sha256 is not, so the study would not start "
            "from the parent's model: have 'wardround study continue' write both."
        )
    if study.model.adapter_rank is not None:
        yield (
            f"model.adapter_rank = {study.model.adapter_rank} takes the parent's model without its "
            "head: remove model.adapter_rank, or continual.parent and continual.model."
        )


def _numbers_are_read(study: Study, held: ContinualSection) -> Iterator[str]:
    readers = {
        "replay": (held.replay is not None, ("replay",)),
        "weight": (held.weight is not None, _TERMS),
        "temperature": (held.temperature != 2.0, ("lwf",)),
    }
    for key, (is_set, methods) in readers.items():
        if is_set and held.method not in methods:
            yield (
                f"continual.{key} has no effect with continual.method = {held.method!r} (it is "
                f"for {', '.join(methods)}): remove it."
            )
    if held.classes is not None and not 0 < held.classes <= study.class_count:
        yield (
            f"continual.classes = {held.classes} are the first of data.classes that the parent "
            f"knows, and there are {study.class_count}: lower it."
        )


def _replays(study: Study, held: ContinualSection) -> Iterator[str]:
    training = study.training
    if held.method != "replay" or held.wave == 1 or study.privacy.mode == "patient":
        return
    if training.sampling != "shuffle":
        yield (
            f"training.sampling = {training.sampling!r} and continual.method = 'replay' both say "
            "whom a batch is of: remove one of the two."
        )


def _fits_privacy(study: Study, held: ContinualSection) -> Iterator[str]:
    if study.privacy.mode != "patient":
        return
    if held.method == "ewc":
        yield (
            "continual.method = 'ewc' reads old patients' gradients without noise, and the update "
            "would tell of them beyond privacy.epsilon: choose 'replay' or 'none', whose every "
            "gradient is clipped and noised."
        )
    if held.method == "lwf":
        yield (
            "continual.method = 'lwf' adds a term to the mean loss of a batch, past the clipping "
            "of each patient's gradient: choose 'replay' or 'none'."
        )
    if held.replay is not None:
        yield (
            f"continual.replay = {held.replay:g} fixes whom a batch is of, and privacy.mode = "
            "'patient' draws each patient with the same probability: remove it; old and new "
            "patients are then drawn alike."
        )


def _fits_the_rest(study: Study, held: ContinualSection) -> Iterator[str]:
    if study.statistics.ask:
        yield "continual is of studies that train, and statistics.ask trains nothing: remove one."
    if held.method == "lwf" and not (study.task.classifies or study.task.dense):
        yield (
            "continual.method = 'lwf' holds answers by class to those of the parent's model, and "
            f"the task {study.study.task} has none: choose 'replay' or 'ewc'."
        )
    if study.federation.strategy in PRESETS:
        plan = plan_from(study.federation, adapted=study.model.adapted)
        if held.parent is not None and plan.personalised:
            yield (
                "continual.parent is one model that all sites start from, and this strategy keeps "
                "a part of the model at each site: choose another, e.g. fedavg or fedprox."
            )
        if held.method in _TERMS and plan.objective != "plain":
            yield (
                f"continual.method = {held.method!r} is what a site makes small beside the loss, "
                f"and the strategy has {plan.objective!r} there: choose fedavg, or 'replay'."
            )
