"""One prepared examination: what a network sees of it, and what it is scored against."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class StoredMask:
    """A mask as it was stored, where the one that the network is trained with has another grid.

    Attributes:
        labels: ``(*spatial)``; the axes are turned as the study asks, no voxel is changed.
        resampled: ``(*spatial)`` after resampling and resizing, before cropping and padding.
        spacing_mm: Millimetres a voxel; 1 where the files do not say.
    """

    labels: Tensor
    resampled: tuple[int, ...]
    spacing_mm: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """One prepared examination.

    Attributes:
        image: ``(C, *spatial)`` float32.
        mask: ``(*spatial)`` uint8 or int16; None for a classification.
        spacing: Millimetres a voxel; 1 where the files do not say.
        has_spacing: Whether the files said so, where the examination was read just now.
        stored: What predictions are scored against; None where that is the mask above.
        boxes: ``(M, 1 + 2 dims)`` float32 of a detection, in voxels of the image above.
    """

    image: Tensor
    mask: Tensor | None
    spacing: tuple[float, ...]
    has_spacing: bool = True
    stored: StoredMask | None = None
    boxes: Tensor | None = None

    @property
    def byte_count(self) -> int:
        """Memory it takes."""
        stored = None if self.stored is None else self.stored.labels
        parts = (self.image, self.mask, stored, self.boxes)
        return sum(part.nbytes for part in parts if part is not None)


def unless_same(stored: StoredMask, prepared: Tensor) -> StoredMask | None:
    """Return a stored mask unless the prepared one lies on its grid, voxel by voxel."""
    own = tuple(stored.labels.shape)
    return None if own == tuple(stored.resampled) == tuple(prepared.shape) else stored


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Return an array as a tensor, over the same memory where its rows lie in order."""
    return torch.from_numpy(np.ascontiguousarray(array))
