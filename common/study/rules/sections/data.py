"""Rules of the data: sizes, classes, tables, images, and how these are harmonised."""

from collections.abc import Callable, Iterator
from itertools import pairwise

from wardround.common.study.registry import NETWORKS, NetworkEntry, largest_patch, tasks_that
from wardround.common.study.sections.harmonisation import LANDMARK_PERCENTS
from wardround.common.study.study import Study


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


_RULES: tuple[Callable[[Study], Iterator[str]], ...] = (
    _sizes_fit,
    _classes_fit,
    _table_fits,
    _images_fit,
    _harmonisation_fits,
    _labels_fit,
)


def data_rules(study: Study) -> Iterator[str]:
    """Yield a sentence for each rule of the data that a study breaks."""
    for rule in _RULES:
        yield from rule(study)
