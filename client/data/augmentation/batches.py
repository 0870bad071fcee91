"""A training batch on its way to the network: padded, with parts left out, changed, or hidden."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor

from wardround.client.data.augmentation.applied import apply_changes
from wardround.client.data.augmentation.drawn import draw_changes
from wardround.client.data.augmentation.moved_boxes import move_boxes
from wardround.client.data.augmentation.presets import PRESETS
from wardround.client.data.batch import Batch, to_device
from wardround.client.data.manifest.covariates import drop_modalities
from wardround.client.data.patches import pad_to
from wardround.client.tasks.registry import task_of
from wardround.client.tasks.task import HidesParts
from wardround.client.tasks.windows import accepted_sizes, pad_around
from wardround.common.files.packages.references import reference_of
from wardround.common.study.study import Study


def accepted(batch: Batch, study: Study) -> Batch:
    """Return whole images padded to what the network can divide, as they are evaluated."""
    if batch.images is None or study.input_size is not None:
        return batch
    sizes = accepted_sizes(batch.images.shape[2:], study)
    if sizes == list(batch.images.shape[2:]):
        return batch
    images, _ = pad_around(batch.images, sizes)
    return Batch(images, batch.covariates, pad_to(batch.targets, sizes, 0))


def with_less(batch: Batch, study: Study, generator: Generator) -> Batch:
    """Return the batch with some optional parts left out, where the study asks for it."""
    chance = study.training.modality_dropout
    if not chance or batch.covariates is None:
        return batch
    covariates = drop_modalities(batch.covariates, study.data, chance, generator)
    return replace(batch, covariates=covariates)


def augmented(
    batch: Batch,
    study: Study,
    spacings: Callable[[], Tensor],
    generator: Generator,
    device: torch.device,
) -> Batch:
    """Return the batch on a device, each image changed as the study's augmentation draws it.

    Args:
        spacings: Gives ``(E, dimensions)`` millimetres a voxel of the E examinations that the batch
            is of, as many patches of each; asked only where images are turned.
        generator: Of the CPU.
    """
    name, has_masks = study.data.augmentation, study.task.column == "mask"
    if batch.images is None or name == "none":
        return batch.to(device)
    if reference_of(name) is not None:
        from wardround.client.data.augmentation.registered import transformed

        return transformed(batch.to(device), study, has_masks, generator)
    preset = PRESETS[name]
    voxels = spacings() if preset.rotation else None
    if voxels is not None and len(voxels) < len(batch.images):
        voxels = voxels.repeat_interleave(len(batch.images) // len(voxels), dim=0)
    drawn = draw_changes(preset, len(batch.images), study.data.dimensions, generator, voxels)
    moved = batch.targets
    if study.task.boxes:  # a few numbers: moved before they travel
        moved = move_boxes(moved, batch.images.shape[2:], drawn)
    images, covariates, targets, *there = to_device(
        (batch.images, batch.covariates, moved, *drawn.tensors.values()), device
    )
    if images is None or targets is None:
        msg = "a batch of images arrived without them"
        raise TypeError(msg)
    masks, changes = targets if has_masks else None, drawn.arrived(there)
    images, masks = apply_changes(images, masks, changes)
    return Batch(images, covariates, targets if masks is None else masks)


def hidden(batch: Batch, study: Study, generator: Generator | None) -> Batch:
    """Return what the network is to see, where pretraining hides parts or shows two views.

    Args:
        generator: None hides the same parts each time.
    """
    if study.contrasts and batch.images is not None:
        from wardround.client.data.augmentation.views import two_views  # one loss asks for them

        return replace(batch, images=two_views(batch.images, generator))
    task = task_of(study)
    return task.hide(batch, study, generator) if isinstance(task, HidesParts) else batch
