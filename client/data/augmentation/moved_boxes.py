"""Boxes of a batch, moved as its images are."""

from collections.abc import Sequence

import torch
from torch import Tensor

from wardround.client.data.augmentation.drawn import AugmentationParameters
from wardround.client.data.batch import to_device

_LEAST_LEFT = 0.25  # of a box's size, within the image; of less nobody could say what it is


def move_boxes(boxes: Tensor, size: Sequence[int], parameters: AugmentationParameters) -> Tensor:
    """Return the boxes of a batch, moved exactly as its images are by the same changes.

    What leaves the image is cut off; a box of which less than a quarter stays is taken away.

    Args:
        boxes: ``(B, M, 1 + 2 dims)``: class, lo.., hi.. in voxels; rows of class -1 are padding.
        size: ``(*spatial)`` of the images.
        parameters: As drawn, without rotations: a box that is turned is no box.

    Returns:
        The same shape; boxes that were taken away are padding.
    """
    parameters = parameters.arrived(to_device(parameters.tensors.values(), boxes.device))
    classes, low, high = boxes[..., :1], *boxes[..., 1:].chunk(2, dim=-1)
    sides = torch.tensor(size, dtype=boxes.dtype, device=boxes.device)
    flips, transposes = parameters.flips, parameters.transposes
    if flips is not None:
        chosen = flips[:, None]
        low, high = torch.where(chosen, sides - high, low), torch.where(chosen, sides - low, high)
    if transposes is not None and size[-1] == size[-2]:
        order = [*range(len(size) - 2), len(size) - 1, len(size) - 2]
        swapped = transposes[:, None, None]
        low = torch.where(swapped, low[..., order], low)
        high = torch.where(swapped, high[..., order], high)
    if parameters.affine is not None:
        # From the new image to the old one, x first, in halves of the image's size.
        scale = parameters.affine.diagonal(dim1=1, dim2=2).flip(1)[:, None]
        shift = parameters.affine[:, :, -1].flip(1)[:, None]
        low, high = (
            ((2 * edge / sides - 1 - shift) / scale + 1) / 2 * sides for edge in (low, high)
        )
    whole = (high - low).prod(-1, keepdim=True)
    low, high = low.clamp(min=0), torch.minimum(high, sides)
    left = (high - low).clamp(min=0).prod(-1, keepdim=True)
    stays = (classes >= 0) & (left >= _LEAST_LEFT * whole)
    empty = torch.zeros_like(boxes)
    empty[..., 0] = -1
    return torch.where(stays, torch.cat([classes, low, high], dim=-1), empty)
