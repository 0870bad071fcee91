"""Rules between the keys of a study, checked when it is read and not in the middle of a run."""

from collections.abc import Callable, Iterator
from itertools import pairwise

from wardround.common.errors import known_names
from wardround.common.study.registry import (
    LOSSES,
    METRICS,
    NETWORKS,
    NetworkEntry,
    largest_patch,
    tasks_that,
)
from wardround.common.study.rules.continual import continual_rules
from wardround.common.study.rules.decisions import decision_rules
from wardround.common.study.rules.labels import label_rules
from wardround.common.study.rules.modalities import modality_rules
from wardround.common.study.rules.packages import package_rules
from wardround.common.study.rules.packs import pack_rules
from wardround.common.study.rules.privacy.patient_privacy import privacy_rules
from wardround.common.study.rules.privacy.secure_aggregation import masking_rules
from wardround.common.study.rules.statistics import statistics_rules
from wardround.common.study.rules.strategy import strategy_rules
from wardround.common.study.rules.subgroups import subgroup_rules
from wardround.common.study.rules.tasks.detection import detection_rules
from wardround.common.study.rules.tasks.outcomes import outcome_rules
from wardround.common.study.rules.tasks.pretraining import pretraining_rules
from wardround.common.study.sections.harmonisation import LANDMARK_PERCENTS
from wardround.common.study.study import Study

# Presets of data.augmentation that mirror; a test holds them against the presets.
MIRRORING = ("dermoscopy", "histology", "nnunet")
_SUPERVISED = ("dynunet",)  # whose coarser levels can answer too
# Networks whose own normalisation has the statistics of batches.
_BATCH_BY_DEFAULT = ("attention-unet", "densenet121", "efficientnet-b0", "resnet18", "resnet50")


def broken_rules(study: Study) -> list[str]:
    """Return a sentence (fact, value, remedy) for every rule that the study breaks."""
    return [sentence for rule in _RULES for sentence in rule(study)]


def _known_choices(study: Study) -> Iterator[str]:
    if study.model.network not in NETWORKS:
        yield known_names("network", study.model.network, NETWORKS)
    metric = study.evaluation.metric
    if metric is not None and metric not in METRICS:
        yield known_names("metric", metric, METRICS)


def _task_fits(study: Study) -> Iterator[str]:
    task = study.study.task
    network = NETWORKS.get(study.model.network)
    if network is not None and task not in network.tasks:
        fitting = [name for name, entry in NETWORKS.items() if task in entry.tasks]
        yield (
            f"model.network = {study.model.network!r} does not do {task}: "
            f"choose one of {', '.join(fitting)}."
        )
    loss = study.training.loss
    if loss is not None and task not in LOSSES[loss]:
        fitting = [name for name, tasks in LOSSES.items() if task in tasks]
        yield f"training.loss = {loss!r} is not for {task}: choose one of {', '.join(fitting)}."
    metric = METRICS.get(study.evaluation.metric or "")
    if metric is not None and (task not in metric.tasks or metric.surface):
        fitting = [n for n, m in METRICS.items() if task in m.tasks and not m.surface]
        yield (
            f"evaluation.metric = {study.evaluation.metric!r} cannot steer {task}: "
            f"choose one of {', '.join(fitting)}."
        )


def _network_fits(study: Study) -> Iterator[str]:
    entry = NETWORKS.get(study.model.network)
    if entry is None:
        return
    dimensions = 0 if study.data.kind == "table" else study.data.dimensions
    if dimensions not in entry.dimensions:
        what = "a table" if dimensions == 0 else f"{dimensions}D images"
        yield f"model.network = {study.model.network!r} does not take {what}: choose another."
    chosen = study.model.normalisation
    if chosen != "default" and chosen not in entry.normalisations:
        options = ", ".join(("default", *entry.normalisations))
        yield (
            f"model.normalisation = {chosen!r} is not available for {study.model.network}: "
            f"choose one of {options}."
        )
    fixed = {
        "activation": study.model.activation != "default" and not entry.activations,
        "dropout": study.model.dropout > 0 and not entry.dropout,
        "features": study.model.features is not None and not entry.features,
    }
    for key, is_set in fixed.items():
        if is_set:
            yield f"model.{key} cannot be chosen for {study.model.network}: remove it."


def _widths_fit(study: Study) -> Iterator[str]:
    entry, features = NETWORKS.get(study.model.network), study.model.features
    if entry is None or features is None or not entry.features:
        return
    fewest, most = entry.widths
    if not fewest <= len(features) <= most:
        count = str(fewest) if fewest == most else f"{fewest} to {most}"
        yield (f"model.features lists {len(features)} widths: {study.model.network} takes {count}.")
    if any(width < entry.narrowest for width in features):
        yield (
            f"model.features = {list(features)} is too narrow for {study.model.network}: "
            f"each width must be at least {entry.narrowest}."
        )


def _adapters_fit(study: Study) -> Iterator[str]:
    model, entry = study.model, NETWORKS.get(study.model.network)
    if model.adapter_rank is None:
        if model.adapter_scale != 1:
            yield "model.adapter_scale has no effect without model.adapter_rank: set both."
        return
    if model.frozen:
        yield "model.frozen and model.adapter_rank both freeze the network: set one of them."
    if entry is not None and not entry.adapters:
        fitting = ", ".join(name for name, entry in NETWORKS.items() if entry.adapters)
        yield (
            f"model.adapter_rank = {model.adapter_rank} is for transformers ({fitting}), not for "
            f"{model.network}: remove it."
        )
    if model.normalisation == "batch":
        yield (
            "model.normalisation = 'batch' does not fit model.adapter_rank, whose frozen network "
            "must not gather running means: use 'instance' or 'group'."
        )


def _test_time_fits(study: Study) -> Iterator[str]:
    model = study.model
    if model.test_time_statistics is None:
        return
    chosen = model.normalisation
    batch = chosen == "batch" or (chosen == "default" and model.network in _BATCH_BY_DEFAULT)
    if not batch or study.data.kind == "table" or model.network == "mlp":
        kind = "its own kind" if chosen == "default" else f"normalisation {chosen!r}"
        yield (
            f"model.test_time_statistics does nothing for {model.network} with {kind}: instance, "
            "group and layer normalisation look at the image alone already. Remove it, or set "
            "model.normalisation = 'batch' for images."
        )
    if model.adapted:
        yield (
            "model.test_time_statistics does not fit a network that is partly frozen: remove one "
            "of the two."
        )


def _size_fits_network(study: Study, entry: NetworkEntry, seen: tuple[int, ...]) -> Iterator[str]:
    key = "training.patch_size" if study.training.patch_size else "data.size"
    divisor = entry.divisor_for(study.model.features)
    minimum = entry.minimum_for(study.model.features)
    if any(size % divisor or size < minimum for size in seen):
        multiple = f" and a multiple of {divisor}" if divisor > 1 else ""
        yield (
            f"{key} = {list(seen)} does not fit {study.model.network}: "
            f"each must be at least {minimum}{multiple}."
        )
    for side in dict.fromkeys(side for side in seen if entry.patches and not largest_patch(side)):
        yield (
            f"{key} has a side of {side}, which {study.model.network} cannot cut into equal "
            "patches: use a multiple of 16, or 28."
        )


def _sizes_fit(study: Study) -> Iterator[str]:
    data, entry = study.data, NETWORKS.get(study.model.network)
    if data.kind == "table":
        return
    sizes = {
        "data.size": data.size,
        "data.spacing": data.spacing,
        "training.patch_size": study.training.patch_size,
    }
    for key, value in sizes.items():
        if value is not None and len(value) != data.dimensions:
            yield (
                f"{key} has {len(value)} numbers for {data.dimensions}D images: "
                f"give {data.dimensions}."
            )
    seen = study.training.patch_size or data.size
    if entry and seen:
        yield from _size_fits_network(study, entry, seen)
    if seen is None and not study.task.dense:
        yield "data.size is missing: give the size, in pixels, that every image is brought to."
    if study.training.patch_size and not study.task.dense:
        yield f"training.patch_size is for {tasks_that('dense')}: remove it, or set data.size."


def _classes_are_named(study: Study) -> Iterator[str]:
    data, fewest = study.data, study.task.fewest_classes
    if len(set(data.classes)) != len(data.classes):
        yield f"data.classes = {list(data.classes)} names a class twice: use each name once."
    if not data.classes and fewest:
        yield "data.classes is missing: name the classes, as classes = ['normal', 'abnormal']."
    elif len(data.classes) < fewest and not data.multi_label:
        yield f"data.classes has {len(data.classes)} class: give at least {fewest}."


def _classes_fit(study: Study) -> Iterator[str]:
    data = study.data
    yield from _classes_are_named(study)
    if data.multi_label and not study.task.classifies:
        yield f"data.multi_label is for {tasks_that('classifies')}: remove it."
    if data.multi_label and study.training.loss not in (None, "bce", "focal", "mse"):
        yield f"training.loss = {study.training.loss!r} does not fit data.multi_label: use bce."
    one_class_each = study.task.classifies and not data.multi_label
    if not one_class_each and study.training.sampling == "balanced":
        yield "training.sampling = 'balanced' needs one class a patient: use 'shuffle'."
    weights = study.training.class_weights
    if isinstance(weights, tuple) and data.classes and len(weights) != len(data.classes):
        yield (
            f"training.class_weights has {len(weights)} numbers for {len(data.classes)} classes: "
            "give one a class."
        )
    if weights != "none" and study.training.loss in ("dice", "generalised-dice", "mse"):
        yield f"training.class_weights has no effect on {study.training.loss}: remove it."


def _table_fits(study: Study) -> Iterator[str]:
    data = study.data
    if data.kind == "table":
        if not data.covariates:
            yield "data.covariates is empty: a table study needs at least one column."
        if study.task.dense or study.task.boxes:
            choice = tasks_that("dense", "boxes", holds=False)
            yield f"data.kind = 'table' has no {study.study.task}: set study.task = {choice!r}."
        if data.augmentation != "none" or data.intensity != "none":
            yield "data.augmentation and data.intensity are for images: remove them."


def _images_fit(study: Study) -> Iterator[str]:
    data = study.data
    if data.kind == "table":
        return
    if not data.channels:
        yield "data.channels is empty: name at least one image column."
    if len(set(data.channels)) != len(data.channels):
        yield f"data.channels = {list(data.channels)} names a channel twice: use each name once."
    if data.window is not None and data.intensity != "ct":
        yield f"data.window is for data.intensity = 'ct', not {data.intensity!r}: remove it."
    if data.scaling is not None and (data.intensity != "ct" or data.window is None):
        yield "data.scaling is for data.intensity = 'ct' with data.window: remove it, or set both."
    if data.colour and data.dimensions == 3:
        yield "data.colour = true is for 2D images: remove it."
    if data.orientation and data.dimensions == 2:
        yield "data.orientation is for 3D images: remove it."


def _harmonisation_fits(study: Study) -> Iterator[str]:
    data, asked = study.data, study.data.harmonisation
    if asked.foreground != "nonzero" and not asked.landmarks:
        yield (
            f"data.harmonisation.foreground = {asked.foreground!r} has no effect without "
            "landmarks: remove it, or give them."
        )
    if asked.is_asked and data.kind == "table":
        yield "data.harmonisation is for images: remove it."
    elif asked.is_asked and data.intensity == "ct":
        yield (
            "data.harmonisation would move Hounsfield units, which mean the same on every scanner: "
            "remove it, or choose another data.intensity."
        )
    elif asked.landmarks:
        yield from _landmarks_fit(study)


def _landmarks_fit(study: Study) -> Iterator[str]:
    landmarks, wanted = study.data.harmonisation.landmarks, len(LANDMARK_PERCENTS)
    if len(landmarks) != study.data.planes:
        yield (
            f"data.harmonisation.landmarks has {len(landmarks)} lists for {study.data.planes} "
            "planes: give one a channel, and of a colour image three."
        )
    for place, row in enumerate(landmarks, start=1):
        if len(row) != wanted:
            yield (
                f"list {place} of data.harmonisation.landmarks has {len(row)} numbers: give "
                f"{wanted}, the grey values at the percentiles "
                f"{', '.join(f'{percent:g}' for percent in LANDMARK_PERCENTS)}."
            )
        elif not all(low < high for low, high in pairwise(row)):
            yield (
                f"list {place} of data.harmonisation.landmarks does not rise from each number to "
                "the next: take a reference whose quantiles differ."
            )


def _labels_fit(study: Study) -> Iterator[str]:
    label, classes = study.data.ignore_label, len(study.data.classes)
    if label is None:
        return
    if not study.task.dense:
        yield f"data.ignore_label is for {tasks_that('dense')}: remove it."
    elif 0 <= label < classes:
        yield (
            f"data.ignore_label = {label} is the class {study.data.classes[label]!r}: choose a "
            f"number that is none of 0 to {classes - 1}, as 255."
        )


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


def _repeat_fits(study: Study) -> Iterator[str]:
    repeats, rounds = study.study.repeats, study.federation.rounds
    if repeats is not None and repeats.after_round >= rounds:
        yield (
            f"study.repeats.after_round = {repeats.after_round} leaves nothing to train of "
            f"{rounds} rounds: give at most {rounds - 1}."
        )


def _margin_fits(study: Study) -> Iterator[str]:
    metric, margin = METRICS.get(study.metric), study.evaluation.margin
    # What lies in [0, 1] is better when it is higher; a loss or a distance has units of its own.
    if metric is not None and metric.in_unit_interval and margin >= 1:
        yield (
            f"evaluation.margin = {margin:g} is no difference of {study.metric}, which lies "
            "between 0 and 1: give the smallest one that matters, as 0.02."
        )


_RULES: tuple[Callable[[Study], Iterator[str]], ...] = (
    _known_choices,
    _task_fits,
    _network_fits,
    _widths_fit,
    _adapters_fit,
    _test_time_fits,
    _sizes_fit,
    _classes_fit,
    _table_fits,
    _images_fit,
    _harmonisation_fits,
    _labels_fit,
    _budget_fits,
    _optimiser_fits,
    _supervision_fits,
    _labels_are_softened,
    _mirrors_fit,
    _attack_fits,
    _margin_fits,
    _repeat_fits,
    strategy_rules,
    modality_rules,
    package_rules,
    pack_rules,
    privacy_rules,
    masking_rules,
    statistics_rules,
    label_rules,
    outcome_rules,
    subgroup_rules,
    decision_rules,
    detection_rules,
    pretraining_rules,
    continual_rules,
)
