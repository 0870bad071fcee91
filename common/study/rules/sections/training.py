"""Rules of the training: its budget and optimiser, and what it shows the network."""

from collections.abc import Callable, Iterator

from wardround.common.study.registry import tasks_that
from wardround.common.study.study import Study

# Presets of data.augmentation that mirror; a test holds them against the presets.
MIRRORING = ("dermoscopy", "histology", "nnunet")
_SUPERVISED = ("dynunet",)  # whose coarser levels can answer too


def _budget_fits(study: Study) -> Iterator[str]:
    training, evaluation = study.training, study.evaluation
    if training.local_epochs and training.local_steps:
        yield "training.local_epochs and training.local_steps are both set: keep one."
    if training.batch_size < study.fewest_in_batch and not study.contrasts:
        yield (
            f"model.normalisation = 'batch' of {study.model.network} needs "
            f"{study.fewest_in_batch} examples in a batch, and training.batch_size = "
            f"{training.batch_size}: raise it, or choose another normalisation."
        )
    if training.momentum and training.optimiser != "sgd":
        yield f"training.momentum is for sgd, not {training.optimiser}: remove it."
    if evaluation.validation_fraction + evaluation.test_fraction >= 1:
        yield (
            "evaluation.validation_fraction + evaluation.test_fraction leave no training patients: "
            "make their sum less than 1."
        )


def _optimiser_fits(study: Study) -> Iterator[str]:
    training = study.training
    if training.nesterov and not training.momentum:
        yield "training.nesterov looks ahead along training.momentum, which is 0: set it, as 0.99."


def _supervision_fits(study: Study) -> Iterator[str]:
    model = study.model
    if not model.deep_supervision:
        return
    asked = f"model.deep_supervision = {model.deep_supervision}"
    if model.network not in _SUPERVISED or not study.task.dense:
        yield (
            f"{asked} is for the network {', '.join(_SUPERVISED)} of a segmentation: remove it, or "
            "set model.network."
        )
        return
    most = len(model.features or (0,) * 4) - 2
    if model.deep_supervision > most:
        yield f"{asked} is more than the {most} levels between finest and coarsest: lower it."
    if study.data.covariate_width or model.fusion != "early":
        yield (
            f"{asked} does not fit clinical values, optional channels or model.fusion, which add "
            "to the answer of the finest level alone: remove one of the two."
        )
    if study.privacy.mode == "patient":
        yield (
            f"{asked} has no verified gradient of a single patient, which privacy.mode = 'patient' "
            "needs: set it to 0."
        )


def _labels_are_softened(study: Study) -> Iterator[str]:
    training, task = study.training, study.task
    asked = {
        f"training.label_smoothing = {training.label_smoothing:g}": training.label_smoothing,
        f"training.mixup = {training.mixup:g}": training.mixup,
    }
    for words in (words for words, value in asked.items() if value):
        if not task.classifies or study.data.multi_label or study.loss != "cross-entropy":
            yield (
                f"{words} is for a classification with one class each and training.loss = "
                "'cross-entropy': set it to 0."
            )
    if not training.mixup:
        return
    words = f"training.mixup = {training.mixup:g}"
    if study.data.kind == "table" or study.data.optional:
        yield f"{words} is for images of which no part is optional: set it to 0."
    if study.data.labels.partial:
        yield f"{words} does not fit data.labels.partial: one of the mixed labels may be unknown."
    if training.adversarial is not None:
        yield f"{words} and training.adversarial both change the images: set one of them."
    if study.privacy.mode == "patient":
        yield (
            f"{words} mixes the images of two patients, so that none has a gradient of its own to "
            "clip under privacy.mode = 'patient': set it to 0."
        )


def _mirrors_fit(study: Study) -> Iterator[str]:
    if study.evaluation.tta == "none":
        return
    if study.data.kind == "table" or study.task.restores:
        yield (
            f"evaluation.tta = {study.evaluation.tta!r} mirrors images for "
            f"{tasks_that('restores', holds=False)} of images: set it to 'none'."
        )
    elif study.data.augmentation not in MIRRORING:
        yield (
            f"evaluation.tta = {study.evaluation.tta!r} shows the network mirrored images, and "
            f"training with data.augmentation = {study.data.augmentation!r} shows it none: choose "
            f"one of {', '.join(MIRRORING)}, or set it to 'none'."
        )


def _attack_fits(study: Study) -> Iterator[str]:
    attack, rounds = study.training.adversarial, study.federation.rounds
    if attack is None:
        return
    if study.data.kind == "table":
        yield (
            "training.adversarial changes the grey values of images, and a table has none: "
            "remove it."
        )
    if attack.start_round > rounds:
        yield (
            f"training.adversarial.start_round = {attack.start_round} is after the last of "
            f"federation.rounds = {rounds}: lower it."
        )
    if attack.start_round > 1 and study.evaluation.keep == "best":
        yield (
            "evaluation.keep = 'best' may keep a round before training.adversarial.start_round = "
            f"{attack.start_round}, for it looks at unchanged images: set it to 'last'."
        )


_RULES: tuple[Callable[[Study], Iterator[str]], ...] = (
    _budget_fits,
    _optimiser_fits,
    _supervision_fits,
    _labels_are_softened,
    _mirrors_fit,
    _attack_fits,
)


def training_rules(study: Study) -> Iterator[str]:
    """Yield a sentence for each rule of the training that a study breaks."""
    for rule in _RULES:
        yield from rule(study)
