"""Where voxels lie: orientation, spacing, size. Images are interpolated, masks never mixed."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.data.reading.image import MOST_VOXELS, Image, UnreadableError

_LINEAR = {2: "bilinear", 3: "trilinear"}


def axis_codes(affine: NDArray[Any]) -> str:
    """Return where the axes of an affine point to, e.g. "RAS".

    Args:
        affine: ``(4, 4)``, from voxels to millimetres.
    """
    from nibabel.orientations import aff2axcodes

    return "".join(code or "?" for code in aff2axcodes(affine))


def turn_between(before: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
    """Return how axes were turned: for each old axis its new place, and -1 where it was flipped.

    Args:
        before: ``(4, 4)``, from voxels to millimetres.
        after: The same of the turned image.
    """
    from nibabel import orientations

    turn: NDArray[Any] = orientations.ornt_transform(
        orientations.io_orientation(before), orientations.io_orientation(after)
    )
    return turn


def reorient(image: Image, target: str) -> Image:
    """Return the image with its axes flipped and swapped to point to e.g. "RAS".

    Args:
        image: ``(C, *spatial)``.
        target: Where the axes shall point to.

    Returns:
        The same voxels, ``(C, *spatial)`` in another order of the axes.

    Raises:
        UnreadableError: The file does not say how it lies.
    """
    from nibabel import orientations

    if image.affine is None:
        remedy = "store it as NIfTI or DICOM"
        if image.is_unplaced:
            remedy = (
                "write its sform or qform, or set data.orientation = 'stored' in the study where "
                "all sites store their images alike"
            )
        msg = f"the file does not say how it lies, and volumes are turned to {target!r}: {remedy}."
        raise UnreadableError(msg)
    source = orientations.io_orientation(image.affine)
    if np.isnan(source).any():
        msg = "its header gives no usable orientation: mend the header."
        raise UnreadableError(msg)
    turn = orientations.ornt_transform(source, orientations.axcodes2ornt(tuple(target)))
    planes = [orientations.apply_orientation(plane, turn) for plane in image.array]
    shape = image.array.shape[1:]
    affine = image.affine @ orientations.inv_ornt_aff(turn, shape)
    spacing = image.spacing
    if spacing is not None:
        new_axis_of = turn[:, 0].astype(int)
        spacing = tuple(spacing[int(np.flatnonzero(new_axis_of == axis)[0])] for axis in range(3))
    array = np.ascontiguousarray(np.stack(planes))
    return replace(image, array=array, spacing=spacing, affine=affine)


def size_at_spacing(
    size: Sequence[int], spacing: Sequence[float], target: Sequence[float]
) -> tuple[int, ...]:
    """Return how many voxels of the target spacing cover the same millimetres.

    Args:
        size: Voxels of each axis.
        spacing: Millimetres a voxel.
        target: Millimetres a voxel, as wanted.

    Raises:
        UnreadableError: Less than half a voxel is left, or more than memory holds.
    """
    found = tuple(
        round(count * step / new) if count * step < MOST_VOXELS * new else MOST_VOXELS
        for count, step, new in zip(size, spacing, target, strict=True)
    )
    for count, step, new in zip(size, spacing, target, strict=True):
        # A lone slice, however thin, is one voxel.
        if count > 1 and count * step < new / 2:
            msg = (
                f"it is {count * step:.3g} mm long along an axis, and nothing of it is left at "
                f"data.spacing = {list(target)}: mend the voxel size in its header, or its unit."
            )
            raise UnreadableError(msg)
    if math.prod(max(1, count) for count in found) > MOST_VOXELS:
        msg = (
            f"at data.spacing = {list(target)} it would have more than {MOST_VOXELS:,} voxels: "
            "take a larger spacing."
        )
        raise UnreadableError(msg)
    return tuple(max(1, count) for count in found)


def resize_images(block: NDArray[np.float32], size: Sequence[int]) -> NDArray[np.float32]:
    """Return ``(N, planes, *size)`` by linear interpolation, smoothed first where it shrinks."""
    if block.shape[2:] == tuple(size):
        return block
    dimensions = len(size)
    if dimensions == 3:
        block = _smoothed_for(block, size)
    resized: NDArray[np.float32] = F.interpolate(
        _tensor(block), tuple(size), mode=_LINEAR[dimensions], antialias=dimensions == 2
    ).numpy()
    return resized


def resize_masks(block: NDArray[Any], size: Sequence[int]) -> NDArray[Any]:
    """Return ``(N, 1, *size)`` with the label of the nearest voxel."""
    if block.shape[2:] == tuple(size):
        return block
    resized = F.interpolate(_tensor(block).float(), tuple(size), mode="nearest-exact")
    return resized.numpy().astype(block.dtype)


def centre_fit(block: NDArray[Any], size: Sequence[int], background: float | None) -> NDArray[Any]:
    """Return the block cropped and padded around its centre.

    Args:
        block: ``(N, planes, *spatial)``.
        size: The wanted spatial size.
        background: Fills what is padded; None takes the darkest value of each image.
    """
    if block.shape[2:] == tuple(size):
        return block
    shape = (*block.shape[:2], *size)
    if background is None:
        darkest = block.min(axis=tuple(range(1, block.ndim)), keepdims=True)
        result = np.ascontiguousarray(np.broadcast_to(darkest, shape)).astype(block.dtype)
    else:
        result = np.full(shape, background, dtype=block.dtype)
    source, target = [slice(None)] * 2, [slice(None)] * 2
    for have, want in zip(block.shape[2:], size, strict=True):
        kept = min(have, want)
        source.append(slice((have - kept) // 2, (have - kept) // 2 + kept))
        target.append(slice((want - kept) // 2, (want - kept) // 2 + kept))
    result[tuple(target)] = block[tuple(source)]
    return result


def _tensor(block: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(block))


def _smoothed_for(block: NDArray[np.float32], size: Sequence[int]) -> NDArray[np.float32]:
    """Return the block with what the smaller grid cannot hold taken out."""
    factors = [have / want for have, want in zip(block.shape[2:], size, strict=True)]
    if max(factors) <= 1.2:
        return block
    from scipy.ndimage import gaussian_filter

    sigma = (0.0, 0.0, *(max(0.0, (factor - 1) / 2) for factor in factors))
    smooth: NDArray[np.float32] = gaussian_filter(block, sigma)
    return smooth
