"""What a study of pretraining may say: it reads no label, so that nothing of labels fits."""

from collections.abc import Iterator

from wardround.common.study.plans.strategy import plan_from
from wardround.common.study.registry import NETWORKS
from wardround.common.study.study import Study


def pretraining_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule of pretraining that is broken."""
    if not study.task.restores:
        if study.training.masking is not None:
            yield "training.masking is for study.task = 'pretraining': remove it."
        return
    yield from _without_labels(study)
    yield from _without_effect(study)
    yield from _parts_fit(study)
    yield from _views_fit(study)


def _without_labels(study: Study) -> Iterator[str]:
    data, training = study.data, study.training
    if data.classes:
        yield (
            f"data.classes names {len(data.classes)} classes, and pretraining reads no label: "
            "remove it."
        )
    if data.covariates:
        yield "data.covariates are not restored by pretraining, which is of images: remove them."
    if training.class_weights != "none":
        yield "training.class_weights weighs classes, and pretraining has none: remove it."
    if study.evaluation.subgroups:
        yield "evaluation.subgroups is not measured of pretraining: remove it."
    if study.statistics.ask:
        yield "statistics.ask counts labels too, and pretraining has none: ask with another task."


def _without_effect(study: Study) -> Iterator[str]:
    if study.training.adversarial is not None:
        yield (
            "training.adversarial changes images so that they are classified wrongly, and "
            "pretraining classifies none: remove it."
        )
    try:
        plan = plan_from(study.federation, adapted=study.model.adapted)
    except KeyError:
        return  # an unknown strategy, said elsewhere
    if plan.objective == "contrastive":
        yield (
            "the contrastive objective compares one feature vector an image (Li et al. 2021), "
            "which pretraining does not have: choose another strategy."
        )


def _views_fit(study: Study) -> Iterator[str]:
    if not study.contrasts:
        return
    entry, training = NETWORKS.get(study.model.network), study.training
    if entry is not None and "segmentation" in entry.tasks:
        yield (
            "training.loss = 'nt-xent' compares one feature vector an image, which "
            f"{study.model.network} does not have: choose an image classifier's network, or "
            "training.loss = 'masked-l1'."
        )
    if training.masking is not None:
        yield "training.masking hides parts, and training.loss = 'nt-xent' none: remove it."
    if training.batch_size < study.fewest_in_batch:
        yield (
            "training.loss = 'nt-xent' tells the images of a batch apart, and "
            f"training.batch_size = {training.batch_size} has one: raise it, to 32 or more."
        )
    if study.privacy.mode == "patient":
        yield (
            "training.loss = 'nt-xent' compares the patients of a batch with each other, so that "
            "none has a gradient of its own to clip: choose 'masked-l1', or privacy.mode = 'none' "
            "or 'site'."
        )


def _parts_fit(study: Study) -> Iterator[str]:
    masking, size = study.training.masking, study.data.size
    if masking is None or masking.patch is None or size is None:
        return
    if 2 * masking.patch > min(size):
        yield (
            f"training.masking.patch = {masking.patch} leaves no two parts on the shortest side of "
            f"data.size = {list(size)}: give at most {max(1, min(size) // 2)}."
        )
