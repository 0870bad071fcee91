"""Images of any size through a network that takes some: padded, or in windows that slide."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

import torch
from torch import Tensor

from wardround.client.tasks.task import Box
from wardround.common.study.registry import NETWORKS
from wardround.common.study.study import Study

_SIGMA = 0.125  # of a window's Gaussian, as a part of each side
_LEAST_WEIGHT = 1e-3  # of the largest, 1: a window's corner still counts where no other reaches
_NUMBERS_OF_A_PART = 2**24  # 64 MB of float32: what follows makes several copies of a part


@dataclass(frozen=True, slots=True)
class Windows:
    """How windows slide over an image.

    Attributes:
        patch: Size of a window, in voxels.
        overlap: Share of a window that the next one covers again, in [0, 1).
        at_once: Windows that make one batch.
    """

    patch: tuple[int, ...]
    overlap: float
    at_once: int


def slide_windows(
    forward: Callable[[Tensor, Tensor], Tensor], images: Tensor, windows: Windows
) -> Tensor:
    """Return the mean of overlapping windows' logits, as :func:`slide_in_parts`, in one piece.

    Returns:
        ``(B, K, *spatial)``, on the device of the images.
    """
    logits: Tensor | None = None
    for place, part in slide_in_parts(forward, images, windows):
        if logits is None:
            logits = part.new_empty(len(images), part.shape[1], *images.shape[2:])
        logits[place] = part
    if logits is None:
        msg = "an image without voxels has no windows"
        raise ValueError(msg)
    return logits


def slide_in_parts(
    forward: Callable[[Tensor, Tensor], Tensor], images: Tensor, windows: Windows
) -> Iterator[tuple[Box, Tensor]]:
    """Yield the mean of overlapping windows' logits, each weighted by a Gaussian about its centre.

    The windows' places and weights are MONAI's: a window counts less towards its border (sigma is
    1/8 of each side: Isensee et al., "nnU-Net", 2021). MONAI's own inferer keeps the sums of the
    whole image, and three times as much for a moment: 18 GB for a CT of 512 x 512 x 300 with 14
    classes. Here the windows go along one axis, and what no later window reaches is given away.

    Args:
        forward: From windows ``(W, C, *patch)`` and their cases ``(W,)`` to ``(W, K, *patch)``.
        images: ``(B, C, *spatial)``; axes smaller than the patch are padded and cropped back. The
            sums are kept on their device.
        windows: Their size and overlap.

    Yields:
        Where a part lies in ``(B, K, *spatial)``, and its logits, float32. The parts cover the
        image, each voxel once.
    """
    # MONAI would pad with a constant; training pads each image with its own darkest value.
    padded, inside = pad_around(images, list(map(max, images.shape[2:], windows.patch)))
    sizes = padded.shape[2:]
    axis = max(range(len(sizes)), key=lambda a: sizes[a] / windows.patch[a])
    sums: _Sums | None = None
    for start, boxes in _rows_of_windows(sizes, windows, axis):
        if sums is not None:
            yield from _cropped(sums.give_until(start), inside, axis)
        for box, logits in _predictions(forward, padded, boxes, windows.at_once):
            if sums is None:
                shape = (len(images), logits.shape[1], *sizes)
                sums = _Sums(shape, windows.patch, axis, images.device)
            sums.add(box, logits)
    if sums is not None:
        yield from _cropped(sums.give_until(sizes[axis]), inside, axis)


@lru_cache(maxsize=4)  # MONAI looks at the smallest weight, which a GPU would be waited for
def _weight_of_window(patch: tuple[int, ...], device: torch.device) -> Tensor:
    """Return how much each voxel of a window counts, ``(*patch)``."""
    from monai.data.utils import compute_importance_map

    weight: Tensor = compute_importance_map(
        patch, mode="gaussian", sigma_scale=_SIGMA, device=device, dtype=torch.float32
    )
    return weight.clamp(min=_LEAST_WEIGHT)


class _Sums:
    """The weighted sums of windows along one axis, from where nothing was given away yet."""

    def __init__(
        self, shape: Sequence[int], patch: tuple[int, ...], axis: int, device: torch.device
    ) -> None:
        self._axis, self._begin = axis, 0
        held = list(shape)
        held[axis + 2] = patch[axis]
        self._weight = _weight_of_window(patch, device)
        self._total = torch.zeros(held, device=device)
        self._weights = torch.zeros(held[2:], device=device)

    def add(self, box: Box, logits: Tensor) -> None:
        """Add the logits ``(1, K, *patch)`` of a window of one case."""
        case, *spatial = box
        spatial[self._axis] = slice(None)  # a window begins where the sums do
        place: Box = (case, slice(None), *spatial)
        self._total[place] += logits * self._weight
        if case == slice(0, 1):  # the windows of all cases lie alike
            self._weights[tuple(spatial)] += self._weight

    def give_until(self, end: int) -> Iterator[tuple[int, Tensor]]:
        """Yield what lies before a place of the axis, in thin parts with where each begins."""
        axis, count = self._axis, end - self._begin
        numbers = self._total.numel() // self._total.shape[axis + 2]
        thickness = max(1, _NUMBERS_OF_A_PART // numbers)
        for first in range(0, count, thickness):
            length = min(thickness, count - first)
            weights = self._weights.narrow(axis, first, length)
            yield self._begin + first, self._total.narrow(axis + 2, first, length) / weights
        self._begin = end
        for held, place in ((self._total, axis + 2), (self._weights, axis)):
            kept = held.shape[place] - count
            for first in range(0, kept, count):  # in steps, so that no part overlaps its source
                length = min(count, kept - first)
                target = held.narrow(place, first, length)
                target.copy_(held.narrow(place, first + count, length))
            held.narrow(place, kept, count).zero_()


def _rows_of_windows(
    sizes: Sequence[int], windows: Windows, axis: int
) -> Iterator[tuple[int, list[Box]]]:
    """Yield the windows' boxes by where they begin along an axis."""
    from monai.data.utils import dense_patch_slices

    steps = [
        patch if patch == size else max(1, int(patch * (1 - windows.overlap)))
        for patch, size in zip(windows.patch, sizes, strict=True)
    ]
    boxes: list[Box] = dense_patch_slices(sizes, windows.patch, steps)
    boxes.sort(key=lambda box: int(box[axis].start))
    for start, some in groupby(boxes, key=lambda box: int(box[axis].start)):
        yield start, list(some)


def _predictions(
    forward: Callable[[Tensor, Tensor], Tensor], images: Tensor, boxes: Sequence[Box], at_once: int
) -> Iterator[tuple[Box, Tensor]]:
    """Yield each window's box, the case first, with its logits ``(1, K, *patch)``."""
    placed = [(case, box) for case in range(len(images)) for box in boxes]
    for first in range(0, len(placed), at_once):
        some = placed[first : first + at_once]
        seen = torch.stack([images[case][(slice(None), *box)] for case, box in some])
        # Filled where they are needed: numbers of this process would be copied, with a wait.
        cases = torch.stack([seen.new_full((), case, dtype=torch.int64) for case, _ in some])
        logits = forward(seen, cases)
        for number, (case, box) in enumerate(some):
            yield (slice(case, case + 1), *box), logits[number : number + 1]


def _cropped(
    parts: Iterator[tuple[int, Tensor]], inside: Box, axis: int
) -> Iterator[tuple[Box, Tensor]]:
    """Yield the parts without what was padded, and where they lie in the image as it was."""
    begin, end = inside[axis + 2].start, inside[axis + 2].stop
    for start, part in parts:
        first, last = max(start, begin), min(start + part.shape[axis + 2], end)
        if first >= last:
            continue
        within = list(inside)
        within[axis + 2] = slice(first - start, last - start)
        place = [slice(None)] * len(inside)
        place[axis + 2] = slice(first - begin, last - begin)
        yield tuple(place), part[tuple(within)]


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
