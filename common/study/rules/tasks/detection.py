"""What a study may say of boxes: anchors that fit its images, and images whose boxes can follow."""

from collections.abc import Iterator
from itertools import pairwise

from wardround.common.study.registry import TASKS, anchor_sides
from wardround.common.study.study import Study

# Presets of data.augmentation that turn by any angle; a test holds them against the presets.
TURNING = ("xray", "ct", "mr", "dermoscopy", "ultrasound", "nnunet")

_UNNOISED = ("map", "froc")


def detection_rules(study: Study) -> Iterator[str]:
    """Yield a sentence (fact, value, remedy) for every rule of boxes that the study breaks."""
    if not study.task.boxes:
        if study.model.anchors is not None:
            finding = " or ".join(name for name, entry in TASKS.items() if entry.boxes)
            yield f"model.anchors is for {finding}: remove it."
        return
    if study.data.augmentation in TURNING:
        yield (
            f"data.augmentation = {study.data.augmentation!r} turns images by any angle, and a box "
            "that is turned is no box: choose 'none', 'light' or 'histology'."
        )
    if study.data.covariates and study.data.kind == "image":
        yield (
            "data.covariates shift the scores of a whole image, and a detection has one for each "
            "box: remove them."
        )
    if study.privacy.mode == "patient" and study.metric in _UNNOISED:
        yield (
            f"evaluation.metric = {study.metric!r} has no form to which noise can be added: boxes "
            "are measured at IoU .50 there, with images that weigh alike; set it to 'map50'."
        )
    yield from _anchors_fit(study)


def _anchors_fit(study: Study) -> Iterator[str]:
    given, size = study.model.anchors, study.data.size
    if given is None:
        return
    levels = len(anchor_sides(study.model.features, None))
    if len(given) != levels:
        yield (
            f"model.anchors has {len(given)} sides, and the network has {levels} levels, one less "
            f"than model.features lists: give {levels}."
        )
    if any(after <= before for before, after in pairwise(given)):
        yield (
            f"model.anchors = {list(given)} does not rise: the first side is of the finest level, "
            "and each further one is larger."
        )
    if size is not None and max(given) > max(size):
        yield (
            f"model.anchors has a side of {max(given)}, and data.size = {list(size)}: no box of an "
            "image is so long; give sides of the boxes that are looked for, in voxels of data.size."
        )
