"""Images of any size through a network that takes some: padded, or in windows that slide."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wardround.common.study.registry import NETWORKS
from wardround.common.study.study import Study

Box = tuple[slice, ...]


def slide_windows(
    forward: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    patch: tuple[int, ...],
    overlap: float,
    windows_at_once: int,
) -> Tensor:
    """Return the mean of overlapping windows' logits, each weighted by a Gaussian about its centre.

    MONAI slides the windows and adds them up as they come; a window counts less towards its border
    (sigma is 1/8 of each side: Isensee et al., "nnU-Net", 2021).

    Args:
        forward: From windows ``(W, C, *patch)`` and their cases ``(W,)`` to ``(W, K, *patch)``.
        images: ``(B, C, *spatial)``; axes smaller than the patch are padded and cropped back.
        patch: Size of a window, in voxels.
        overlap: Share of a window that the next one covers again, in [0, 1).
        windows_at_once: Windows that make one batch.

    Returns:
        ``(B, K, *spatial)``.
    """
    from monai.inferers import sliding_window_inference  # every network of windows is MONAI's too

    # MONAI would pad with a constant; training pads each image with its own darkest value.
    padded, inside = pad_around(images, list(map(max, images.shape[2:], patch)))

    def of_windows(windows: Tensor, places: Sequence[Sequence[slice]]) -> Tensor:
        cases = torch.tensor([place[0].start for place in places], device=images.device)
        return forward(windows, cases)

    logits: Tensor = sliding_window_inference(
        padded,
        patch,
        windows_at_once,
        of_windows,
        overlap=overlap,
        mode="gaussian",
        with_coord=True,
    )
    return logits[inside]


def accepted_sizes(sizes: Sequence[int], study: Study) -> list[int]:
    """Return the least sizes that hold the image and that the study's network accepts."""
    network, features = NETWORKS[study.model.network], study.model.features
    divisor, minimum = network.divisor_for(features), network.minimum_for(features)
    return [max(math.ceil(size / divisor) * divisor, minimum) for size in sizes]


def pad_around(images: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Box]:
    """Return images padded around their centres, and where the originals lie in them.

    The border takes each image's darkest value, as patches are padded for training.

    Args:
        images: ``(B, C, *spatial)``.
        sizes: The new spatial size, nowhere smaller.
    """
    given = images.shape[2:]
    before = [(size - had) // 2 for size, had in zip(sizes, given, strict=True)]
    inside = [slice(start, start + had) for start, had in zip(before, given, strict=True)]
    box: Box = (slice(None), slice(None), *inside)
    if list(sizes) == list(given):
        return images, box
    darkest = images.amin(dim=tuple(range(1, images.ndim)), keepdim=True)
    padded = darkest.expand(*images.shape[:2], *sizes).clone()
    padded[box] = images
    return padded, box
