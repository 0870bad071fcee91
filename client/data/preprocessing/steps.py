"""The steps from an image as it was read to the array that a network sees, each in its order."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.preprocessing import geometry
from wardround.client.data.preprocessing.alignment import bring_onto
from wardround.client.data.preprocessing.intensity import INTENSITIES, background_of
from wardround.client.data.reading.image import Image, UnreadableError
from wardround.common.study.sections.data import AS_STORED, COMMON_ORIENTATION, DataSection

_GENTLE_SIGMA = 0.5  # voxels


def oriented(image: Image, data: DataSection) -> Image:
    """Return a volume with its axes as the study has them; all sites' alike where it says nothing.

    Raises:
        UnreadableError: Its header could say how it lies, and does not.
    """
    if data.dimensions == 2 or data.orientation == AS_STORED:
        return image
    if data.orientation is None and image.affine is None and not image.is_unplaced:
        return image  # an array, whose format says nothing of it
    return geometry.reorient(image, data.orientation or COMMON_ORIENTATION)


def onto_grid(image: Image, first: Image, data: DataSection, is_mask: bool = False) -> Image:
    """Return an image or a mask, as it was read, on the grid that the study asks for.

    Args:
        first: The first channel as it was read.

    Raises:
        UnreadableError: It does not lie on that grid.
    """
    return bring_onto(image, first, data.resample_to == "image", is_mask)


def at_spacing(image: Image, data: DataSection, is_mask: bool) -> NDArray[Any]:
    """Return a turned image at the study's voxel size, ``(1, planes, *spatial)``.

    Raises:
        UnreadableError: The study has a voxel size, and the file does not say its own.
    """
    block = image.array[np.newaxis]
    if data.spacing is None:
        return block
    if image.spacing is None:
        msg = (
            f"the file does not say its voxel size, but data.spacing = {list(data.spacing)}: "
            "store it as NIfTI or DICOM."
        )
        raise UnreadableError(msg)
    size = geometry.size_at_spacing(block.shape[2:], image.spacing, data.spacing)
    resize = geometry.resize_masks if is_mask else geometry.resize_images
    return resize(block, size)


def finish_images(
    block: NDArray[np.float32], eight_bit: bool, data: DataSection
) -> NDArray[np.float32]:
    """Resize, denoise, harmonise, normalise and pad images ``(N, planes, *spatial)`` of a channel.

    Args:
        data: The contract of this channel, as ``data.of_channel`` gives it.
    """
    block = on_grid(block, data)
    if data.harmonisation.is_asked:
        from wardround.client.data.preprocessing.harmonisation import harmonised

        block = harmonised(block, data)
    block = INTENSITIES[data.intensity].normalise(block, eight_bit, data)
    if data.size is not None:
        block = geometry.centre_fit(block, data.size, background_of(data))
    return block.astype(np.float32, copy=False)


def on_grid(block: NDArray[np.float32], data: DataSection) -> NDArray[np.float32]:
    """Resize and denoise images ``(N, planes, *spatial)``; their grey values stay their own."""
    block = geometry.resize_images(block, resized(block.shape[2:], data))
    return denoised(block) if data.denoise else block


def finish_masks(block: NDArray[Any], data: DataSection) -> NDArray[Any]:
    """Resize and pad masks ``(N, 1, *spatial)`` as their images."""
    block = geometry.resize_masks(block, resized(block.shape[2:], data))
    return block if data.size is None else geometry.centre_fit(block, data.size, 0)


def denoised(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take out isolated pixels: a median of 3x3 in 2D, a Gaussian of half a voxel in 3D.

    Args:
        block: ``(N, C, *spatial)``.

    Returns:
        The same shape.
    """
    from scipy.ndimage import gaussian_filter, median_filter

    smooth: NDArray[np.float32] = (
        median_filter(block, size=(1, 1, 3, 3))
        if block.ndim == 4
        else gaussian_filter(block, (0, 0, *(_GENTLE_SIGMA,) * 3))
    )
    return smooth


def resized(spatial: tuple[int, ...], data: DataSection) -> tuple[int, ...]:
    """Return the spatial size after resizing, before cropping and padding."""
    return data.size if data.size is not None and data.fit == "resize" else spatial


def resampled_size(image: Image, data: DataSection) -> tuple[int, ...]:
    """Return the spatial size of a turned image after resampling and resizing, before padding."""
    size: tuple[int, ...] = image.array.shape[1:]
    if data.spacing is not None and image.spacing is not None:
        size = geometry.size_at_spacing(size, image.spacing, data.spacing)
    return resized(size, data)


def final_spacing(image: Image, data: DataSection) -> tuple[float, ...]:
    """Return the voxel size after resampling: the same millimetres over the new count."""
    spatial = image.array.shape[1:]
    spacing = image.spacing or (1.0,) * len(spatial)
    size = resampled_size(image, data)
    return tuple(step * have / now for step, have, now in zip(spacing, spatial, size, strict=True))
