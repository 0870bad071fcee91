"""Random patches of an image, some of them centred on what is to be found."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

MOST_POSITIONS = 4096  # evenly spaced; 96 kB a volume instead of 24 bytes for each of its voxels


def foreground_positions(mask: Tensor) -> Tensor:
    """Return ``(P, dimensions)`` places of foreground voxels, thinned out evenly to 4096."""
    positions = torch.nonzero(mask)
    step = -(-len(positions) // MOST_POSITIONS)
    return positions[::step] if step > 1 else positions


def draw_starts(
    spatial: Sequence[int],
    size: Sequence[int],
    foreground: Tensor,
    fractions: tuple[int, float],
    generator: Generator,
) -> Tensor:
    """Draw the first corners of patches.

    Args:
        spatial: Size of the image, at least ``size`` along each axis.
        size: Size of the patches.
        foreground: ``(P, dimensions)`` positions; none means that all patches lie anywhere.
        fractions: How many patches, and the chance that one is centred on a foreground voxel.
        generator: Of the CPU.

    Returns:
        ``(patches, dimensions)`` int64; every patch lies inside the image.
    """
    count, chance = fractions
    room = torch.tensor([have - want for have, want in zip(spatial, size, strict=True)])
    starts = (torch.rand(count, len(room), generator=generator) * (room + 1)).long()
    if len(foreground) == 0:
        return torch.minimum(starts, room)
    chosen = foreground[torch.randint(len(foreground), (count,), generator=generator)]
    centred = chosen - torch.tensor(size) // 2
    is_centred = torch.rand(count, 1, generator=generator) < chance
    return torch.where(is_centred, centred, starts).clamp(min=0).minimum(room)


def crop(array: Tensor, start: Tensor, size: Sequence[int]) -> Tensor:
    """Return the patch of ``(..., *spatial)`` that starts at ``start``.

    Args:
        array: ``(..., *spatial)``.
        start: ``(dimensions,)`` whole numbers, in voxels.
        size: Of the patch, in voxels.

    Returns:
        ``(..., *size)``, a view.
    """
    for axis, (first, extent) in enumerate(zip(start.tolist(), size, strict=True)):
        array = array.narrow(axis - len(size), first, extent)
    return array


def is_smaller(array: Tensor, size: Sequence[int]) -> bool:
    """Return whether an array ``(..., *spatial)`` is smaller than a size along any axis."""
    return any(have < want for have, want in zip(array.shape[-len(size) :], size, strict=True))


def pad_to(array: Tensor, size: Sequence[int], value: float) -> Tensor:
    """Return ``(..., *spatial)`` padded around its centre to at least ``size``.

    Args:
        array: ``(..., *spatial)``.
        size: The least extent of each spatial axis, in voxels.
        value: What the border is filled with.

    Returns:
        ``(..., *padded)``; the array itself where it is large enough.
    """
    short = [
        max(0, want - have) for have, want in zip(array.shape[-len(size) :], size, strict=True)
    ]
    if not any(short):
        return array
    pads = [side for gap in reversed(short) for side in (gap // 2, gap - gap // 2)]
    return F.pad(array, pads, value=value)
