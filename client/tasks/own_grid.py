"""Predictions brought back to the grid of the image as it was stored, where they are scored."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from wardround.client.tasks.task import Spacing

_VOXELS_OF_A_SLAB = 2**23  # int64 labels of 64 MB: what counts them makes some copies of a slab


@dataclass(frozen=True, slots=True)
class OwnGrid:
    """The voxels of an image as it was stored, and what is to be found there.

    Its axes are turned as the study asks, which moves voxels and changes none.

    Attributes:
        truth: ``(*own)``, as the file says it.
        resampled: The size it was given by a new voxel size or a new size, before anything was
            cropped or padded about the centre.
        spacing_mm: Millimetres a voxel; 1 where the file does not say.
    """

    truth: Tensor
    resampled: tuple[int, ...]
    spacing_mm: Spacing

    def on(self, device: torch.device) -> "OwnGrid":
        """Return it with its truth on a device."""
        return OwnGrid(self.truth.to(device), self.resampled, self.spacing_mm)


def slabs(found: Tensor, grid: OwnGrid) -> Iterator[tuple[slice, Tensor]]:
    """Yield what was found, on the image's own grid, a slab of the first axis at a time.

    Each voxel takes the label of the voxel of the prepared grid in which its centre lies. What was
    cropped away takes 0, the background: the network has not seen it, and found nothing there. What
    was padded is left out.

    Args:
        found: ``(*prepared)`` labels.
        grid: The image's own.

    Yields:
        Which rows of the first axis, and their labels ``(rows, *own[1:])``, of the type of
        ``found`` and on its device.
    """
    own, device = tuple(grid.truth.shape), found.device
    axes = [_Axis.of(*sizes) for sizes in zip(own, grid.resampled, found.shape, strict=True)]
    columns = found
    for place, axis in enumerate(axes[1:], start=1):
        columns = axis.taken(columns, place, axis.first, axis.last)
    inner = tuple(slice(axis.first, axis.last) for axis in axes[1:])
    rows = max(1, _VOXELS_OF_A_SLAB // max(1, grid.truth[:1].numel()))
    for start in range(0, own[0], rows):
        end = min(start + rows, own[0])
        slab = torch.zeros((end - start, *own[1:]), dtype=found.dtype, device=device)
        first, last = max(start, axes[0].first), min(end, axes[0].last)
        if first < last:
            slab[(slice(first - start, last - start), *inner)] = axes[0].taken(
                columns, 0, first, last
            )
        yield slice(start, end), slab


def brought_back(found: Tensor, grid: OwnGrid) -> Tensor:
    """Return what was found, ``(*own)``, as :func:`slabs` yields it."""
    whole = torch.empty(grid.truth.shape, dtype=found.dtype, device=found.device)
    for rows, slab in slabs(found, grid):
        whole[rows] = slab
    return whole


@dataclass(frozen=True, slots=True)
class _Axis:
    """Where the voxels of one axis come from.

    Attributes:
        own: Voxels of the image.
        resampled: Voxels after resampling, of the same millimetres.
        shift: From a place among those to the place in the prepared grid.
        first: The first voxel of the image that the prepared grid holds.
        last: One behind the last.
    """

    own: int
    resampled: int
    shift: int
    first: int
    last: int

    @classmethod
    @lru_cache(maxsize=64)
    def of(cls, own: int, resampled: int, prepared: int) -> "_Axis":
        """Return an axis that was resampled, then cropped or padded about its centre."""
        kept = min(resampled, prepared)
        cropped, padded = (resampled - kept) // 2, (prepared - kept) // 2
        # The centre of voxel v is at (v + 1/2) / own of the axis.
        places = [(2 * voxel + 1) * resampled // (2 * own) - cropped for voxel in range(own)]
        inside = [voxel for voxel, place in enumerate(places) if 0 <= place < kept] or [0, -1]
        return cls(own, resampled, padded - cropped, inside[0], inside[-1] + 1)

    def taken(self, labels: Tensor, axis: int, first: int, last: int) -> Tensor:
        """Return the sources of some voxels of the image along an axis of a tensor."""
        if self.own == self.resampled:
            return labels.narrow(axis, first + self.shift, last - first)
        voxels = torch.arange(first, last, device=labels.device)  # made there: nothing is copied
        places = (2 * voxels + 1) * self.resampled // (2 * self.own) + self.shift
        return labels.index_select(axis, places)
