"""The random change of training examples that an installed package registers."""

from dataclasses import replace
from typing import cast

import torch
from torch import Generator, Tensor

from wardround.client.data.batch import Batch
from wardround.common.errors import RunError
from wardround.common.files.packages.importing import component
from wardround.common.files.packages.protocols import Transform
from wardround.common.study.study import Study


def transformed(batch: Batch, study: Study, has_masks: bool, generator: Generator) -> Batch:
    """Return a batch of which each example was changed by itself, so that none knows another.

    Args:
        batch: Images ``(B, C, *spatial)``, with masks as targets where ``has_masks``.
        study: Names the transform.
        generator: Of the CPU, from which the transform draws.

    Raises:
        PackageError: The package is not installed as the study names it.
        RunError: The transform fails, or changes a shape, a type or a class.
    """
    name = study.data.augmentation
    change = cast(Transform, component("transforms", name, study.packages))
    if batch.images is None:
        return batch
    masks = batch.targets if has_masks else None
    known = study.class_count + (study.data.ignore_label is not None)  # the last counts as nothing
    pairs = [
        _one(name, change, image, None if masks is None else masks[place], generator, known)
        for place, image in enumerate(batch.images)
    ]
    images = torch.stack([image for image, _ in pairs])
    if masks is None:
        return replace(batch, images=images)
    kept = [mask for _, mask in pairs if mask is not None]
    return replace(batch, images=images, targets=torch.stack(kept))


def _one(
    name: str,
    change: Transform,
    image: Tensor,
    mask: Tensor | None,
    generator: Generator,
    known: int,
) -> tuple[Tensor, Tensor | None]:
    try:
        found, moved = change(image.clone(), None if mask is None else mask.clone(), generator)
    except Exception as error:  # another's code fails in many ways; its text may name data
        msg = f"{name} failed on a training image ({type(error).__name__}): tell its author."
        raise RunError(msg) from None
    same = _alike(found, image) and (mask is None or _alike(moved, mask))
    if not same or not bool(torch.isfinite(found).all()):
        msg = (
            f"{name} gives no finite image and mask of the shapes and types given: tell its author."
        )
        raise RunError(msg)
    if mask is not None and moved is not None and known and not _is_of_classes(moved, known):
        msg = f"{name} gives a mask of other classes than the study's: tell its author."
        raise RunError(msg)
    return found.to(image), None if mask is None or moved is None else moved.to(mask)


def _alike(found: object, given: Tensor) -> bool:
    """Return whether a change kept shape and kind: a class index is no number between two."""
    if not isinstance(found, Tensor) or found.shape != given.shape or found.is_complex():
        return False
    return given.is_floating_point() or not found.is_floating_point()


def _is_of_classes(mask: Tensor, known: int) -> bool:
    return mask.is_floating_point() or bool(((mask >= 0) & (mask < known)).all())
