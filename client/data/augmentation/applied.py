"""What was drawn for a batch, done to its images and masks; nothing is drawn here but noise."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from wardround.client.data.augmentation.drawn import AugmentationParameters
from wardround.client.data.batch import to_device


def apply_changes(
    images: Tensor, masks: Tensor | None, parameters: AugmentationParameters
) -> tuple[Tensor, Tensor | None]:
    """Return the changed batch; nothing is drawn here but the noise of the drawn seed.

    Args:
        images: ``(B, C, *spatial)`` float on any device.
        masks: ``(B, *spatial)`` labels, moved as the images but never mixed, or None.
        parameters: From :func:`drawn.draw_changes`, for as many images.
    """
    parameters = parameters.arrived(to_device(parameters.tensors.values(), images.device))
    flips, transposes = parameters.flips, parameters.transposes
    if flips is not None:
        images = _flipped(images, flips, transposes)
        masks = None if masks is None else _flipped(masks, flips, transposes)
    if parameters.affine is not None:
        images, masks = _some_moved(images, masks, parameters.affine, parameters.moved)
    images = _recoloured(images, parameters)
    if parameters.rare:
        from wardround.client.data.augmentation.rare_changes import apply_rare

        images = apply_rare(images, parameters.rare)
    return images, masks


def _flipped(array: Tensor, flips: Tensor, transposes: Tensor | None) -> Tensor:
    """Return the array mirrored; with the swap of two axes these are all turns by 90 degrees."""
    shape = (-1, *(1,) * (array.ndim - 1))
    dimensions = flips.shape[1]
    for axis in range(dimensions):
        chosen = flips[:, axis].reshape(shape)
        array = torch.where(chosen, array.flip(axis - dimensions), array)
    if transposes is not None and array.shape[-1] == array.shape[-2]:
        array = torch.where(transposes.reshape(shape), array.transpose(-1, -2), array)
    return array


def _some_moved(
    images: Tensor, masks: Tensor | None, affine: Tensor, places: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the batch, of which some images are moved; None for all of them."""
    if places is None:
        return _moved(images, masks, affine)
    if not len(places):
        return images, masks
    some = None if masks is None else masks[places]
    moved, some = _moved(images[places], some, affine)
    images = images.index_copy(0, places, moved)
    return images, None if masks is None or some is None else masks.index_copy(0, places, some)


def _moved(images: Tensor, masks: Tensor | None, affine: Tensor) -> tuple[Tensor, Tensor | None]:
    # affine_grid counts each axis from -1 to 1: without this, turning would shear an oblong image.
    # Filled on the device: a tensor made of numbers here would be copied there, with a wait.
    sizes = torch.stack([images.new_full((), size) for size in images.shape[:1:-1]])
    linear = affine[:, :, :-1] * (sizes[None, None, :] / sizes[None, :, None])
    theta = torch.cat([linear, affine[:, :, -1:]], dim=2).to(images.dtype)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if masks is None:
        return moved, None
    labels = F.grid_sample(
        masks[:, None].to(images.dtype),
        grid,
        mode="nearest",
        padding_mode="border",
        align_corners=False,
    )
    return moved, labels[:, 0].to(masks.dtype)


def _recoloured(images: Tensor, parameters: AugmentationParameters) -> Tensor:
    axes = tuple(range(1, images.ndim))
    shape = (-1, *(1,) * (images.ndim - 1))

    def column(values: Tensor) -> Tensor:
        return values.reshape(shape).to(images)

    if parameters.gamma is not None:
        low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
        span = (high - low).clamp(min=1e-6)
        bent = ((images - low) / span) ** column(parameters.gamma) * span + low
        # An exact zero is what "mr" leaves for air and for what was cut away: no scanner bends it.
        images = torch.where(images == 0, images, bent)
    if parameters.gain is not None:
        images = images * column(parameters.gain)
    if parameters.offset is None and parameters.noise is None:
        return images
    deviation = images.std(axes, keepdim=True, correction=0)
    if parameters.offset is not None:
        images = images + column(parameters.offset) * deviation
    if parameters.noise is not None:
        source = Generator(images.device).manual_seed(parameters.noise_seed)
        noise = torch.randn(images.shape, generator=source, device=images.device)
        images = images + noise.to(images) * column(parameters.noise) * deviation
    return images
