"""The way back: from what the network saw to the voxels of the image as it was read.

Preprocessing turns axes, resamples, resizes, and crops or pads. This undoes all four. Logits are
interpolated and the class is chosen afterwards: interpolated classes would be steps.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.data.preprocessing.case import StoredMask
from wardround.client.data.preprocessing.preprocessing import prepare_channel
from wardround.client.data.preprocessing.steps import finish_images, resampled_size
from wardround.client.data.reading.image import Image, first_held
from wardround.common.study.sections.data import DataSection

Box = tuple[slice, ...]
_NUMBERS_OF_A_PART = 2**24  # 64 MB of float32: what follows makes several copies of a part
_SMALL = 256  # classes that a byte holds


@dataclass(frozen=True, slots=True)
class OwnGrid:
    """The voxels of an image as it was read, and how they became those that the network sees.

    Attributes:
        shape: ``(*spatial)`` as the reader gave it.
        spacing: Millimetres a voxel of it; None where the file does not say.
        affine: 4x4, from its voxels to RAS millimetres; None where the file does not say.
        turn: nibabel's orientation from the turned axes back to its own; None where none turned.
        turned: ``(*spatial)`` after the axes were turned.
        resampled: ``(*spatial)`` after resampling and resizing.
        fitted: ``(*spatial)`` after cropping and padding: what the network sees.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
    affine: NDArray[Any] | None
    turn: NDArray[Any] | None
    turned: tuple[int, ...]
    resampled: tuple[int, ...]
    fitted: tuple[int, ...]

    @property
    def voxel_ml(self) -> float | None:
        """Millilitres of a voxel of the image; None where its size is not known, or in 2D."""
        if self.spacing is None or len(self.spacing) != 3:
            return None
        return prod(self.spacing) / 1000


def prepare_images(images: Sequence[Image], data: DataSection) -> tuple[Tensor, OwnGrid]:
    """Prepare the channels of an examination that were read already, e.g. to predict.

    Args:
        images: One a channel of the study, in the study's order, as ``read_image`` gives them.
        data: The study's contract.

    Returns:
        ``(C, *spatial)`` float32, and the way back to the voxels of the first channel.

    Raises:
        UnreadableError: One cannot be used, or they do not lie on one grid.
    """
    first = first_held(images)
    channels = [
        prepare_channel(image, first, data.of_channel(place)) for place, image in enumerate(images)
    ]
    finished = [block for _, block in channels]
    stacked = np.concatenate(finished) if len(finished) > 1 else finished[0]
    turned, _ = channels[0]
    grid = _grid_between(first, turned, resampled_size(turned, data), stacked.shape[1:])
    return torch.from_numpy(np.ascontiguousarray(stacked)), grid


def prepare_alike(
    some: Sequence[Sequence[Image]], data: DataSection
) -> list[tuple[Tensor, OwnGrid]]:
    """Prepare several examinations as :func:`prepare_images`, in one sweep where they are alike.

    Those of one size that need not be turned or resampled are; each is still treated by itself.

    Raises:
        UnreadableError: One of them cannot be used.
    """
    first = some[0]
    # An absent channel is zeros, which no sweep over several may prepare as an image.
    shapes = {(i.array.shape, i.eight_bit, i.is_absent) for images in some for i in images}
    if len(some) == 1 or len(shapes) > 1 or data.dimensions != 2 or data.spacing:
        return [prepare_images(images, data) for images in some]
    planes = [
        finish_images(
            np.stack([images[at].array for images in some]),
            first[0].eight_bit,
            data.of_channel(at),
        )
        for at in range(len(first))
    ]
    together = np.concatenate(planes, axis=1) if len(planes) > 1 else planes[0]
    tensors = torch.from_numpy(np.ascontiguousarray(together)).unbind()
    return [
        (
            tensor,
            _grid_between(
                images[0], images[0], resampled_size(images[0], data), tuple(tensor.shape[1:])
            ),
        )
        for images, tensor in zip(some, tensors, strict=True)
    ]


def _grid_between(
    image: Image, turned: Image, resampled: Iterable[int], fitted: Iterable[int]
) -> OwnGrid:
    """Return the way back of an image.

    Args:
        image: As it was read, ``(planes, *spatial)``.
        turned: The same after its axes were turned.
        resampled: Its spatial size after resampling and resizing.
        fitted: Its spatial size after cropping and padding.
    """
    shape = tuple(int(size) for size in image.array.shape[1:])
    turn = None
    if turned is not image and image.affine is not None and turned.affine is not None:
        from nibabel import orientations

        before = orientations.io_orientation(image.affine)
        after = orientations.io_orientation(turned.affine)
        if (before != after).any():
            turn = orientations.ornt_transform(after, before)
    return OwnGrid(
        shape,
        image.spacing,
        image.affine,
        turn,
        tuple(int(size) for size in turned.array.shape[1:]),
        tuple(resampled),
        tuple(fitted),
    )


def grid_of(stored: StoredMask, fitted: Sequence[int]) -> OwnGrid:
    """Return the way back to the grid of a mask as it was stored, its axes turned.

    Args:
        fitted: ``(*spatial)`` of what the network sees.
    """
    turned = tuple(stored.labels.shape)
    return OwnGrid(
        turned, stored.spacing_mm, None, None, turned, tuple(stored.resampled), tuple(fitted)
    )


def labels_in_own_grid(
    parts: Tensor | Iterable[tuple[Box, Tensor]],
    grid: OwnGrid,
    decide: Callable[[Tensor], Tensor],
    classes: int,
) -> NDArray[Any]:
    """Return the class of every voxel of the image as it was read, as :func:`turned_labels`.

    Returns:
        ``(*grid.shape)`` uint8, or int16 for more than 256 classes.
    """
    return _turned_back(turned_labels(parts, grid, decide, classes).cpu().numpy(), grid)


def turned_labels(
    parts: Tensor | Iterable[tuple[Box, Tensor]],
    grid: OwnGrid,
    decide: Callable[[Tensor], Tensor],
    classes: int,
) -> Tensor:
    """Return the class of every voxel of an image whose axes were turned.

    Never more than a part of the resampled logits is in memory. What was cropped away was not seen
    and is class 0.

    Args:
        parts: Logits ``(1, K, *fitted)`` of one image, or parts of them with where each lies, in
            order along one axis and whole along the others, as ``slide_in_parts`` yields them.
        grid: The way back.
        decide: From logits ``(1, K, *part)`` to classes ``(1, *part)``.
        classes: K.

    Returns:
        ``(*grid.turned)`` uint8, or int16 for more than 256 classes, where the logits lie.
    """
    everywhere = (slice(None),) * (2 + len(grid.fitted))
    given = [(everywhere, parts)] if isinstance(parts, Tensor) else parts
    labels: Tensor | None = None
    kind = torch.uint8 if classes <= _SMALL else torch.int16
    crossings = [
        _Crossing.of(*sizes) for sizes in zip(grid.turned, grid.resampled, grid.fitted, strict=True)
    ]
    largest = classes * prod(grid.turned) // min(grid.turned)
    for axis, first, slab in _along(_slabs(given, grid, crossings), crossings, largest):
        logits, place = slab, [crossing.inside for crossing in crossings]
        for other, crossing in enumerate(crossings):
            if other != axis:
                logits = crossing.across(logits, other + 2)
        place[axis] = slice(first, first + logits.shape[axis + 2])
        if labels is None:
            labels = torch.zeros(grid.turned, dtype=kind, device=logits.device)
        labels[tuple(place)] = decide(logits)[0].to(kind)
    return torch.zeros(grid.turned, dtype=kind) if labels is None else labels


def _turned_back(labels: NDArray[Any], grid: OwnGrid) -> NDArray[Any]:
    if grid.turn is None:
        return labels
    from nibabel.orientations import apply_orientation

    return np.ascontiguousarray(apply_orientation(labels, grid.turn))


@dataclass(frozen=True, slots=True)
class _Crossing:
    """How the places of one axis of the image lie among those that the network saw.

    Attributes:
        inside: The image's places that were seen.
        seen: Which of the network's places hold the image: the rest is padding.
        low: ``(n,)`` int64: for each place inside, the seen place before it.
        high: The seen place after it; the same where no interpolation is needed.
        weight: ``(n,)`` float32: how much the later one counts.
    """

    inside: slice
    seen: slice
    low: Tensor
    high: Tensor
    weight: Tensor

    @classmethod
    def of(cls, turned: int, resampled: int, fitted: int) -> "_Crossing":
        kept = min(resampled, fitted)
        cut, padded = (resampled - kept) // 2, (fitted - kept) // 2
        scale = resampled / turned
        # Centres of voxels, as torch's interpolate with align_corners=False has them.
        places = (np.arange(turned) + 0.5) * scale - 0.5 - cut
        was_seen = np.flatnonzero((places >= -0.5) & (places <= kept - 0.5))
        if was_seen.size == 0:  # a voxel so thick that its centre fell outside of what was kept
            was_seen = np.array([int(np.abs(places - (kept - 1) / 2).argmin())])
        inside = slice(int(was_seen[0]), int(was_seen[-1]) + 1)
        places = np.clip(places[inside], 0, kept - 1)
        low = np.floor(places).astype(np.int64)
        weight = (places - low).astype(np.float32)
        high = np.where(weight > 0, np.minimum(low + 1, kept - 1), low)
        return cls(
            inside,
            slice(padded, padded + kept),
            torch.from_numpy(low),
            torch.from_numpy(high),
            torch.from_numpy(weight),
        )

    @property
    def is_plain(self) -> bool:
        """Whether the seen places are the image's own."""
        count = len(self.low)
        return count == self.seen.stop - self.seen.start and not bool(self.weight.any())

    def across(self, logits: Tensor, axis: int) -> Tensor:
        """Return logits ``(1, K, *spatial)`` with this spatial axis in the image's places."""
        if self.is_plain:
            return logits
        return _mixed(logits, axis, (self.low, self.high, self.weight))


def _mixed(logits: Tensor, axis: int, places: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    is_mixed = bool(
        places[2].any()
    )  # looked at before it is on a device, which would be waited for
    low, high, weight = (part.to(logits.device) for part in places)
    before = logits.index_select(axis, low)
    if not is_mixed:
        return before
    shape = [1] * logits.ndim
    shape[axis] = -1
    return torch.lerp(before, logits.index_select(axis, high), weight.reshape(shape))


def _slabs(
    parts: Iterable[tuple[Box, Tensor]], grid: OwnGrid, crossings: list[_Crossing]
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield the axis along which parts come, where each begins in what was seen, and its logits."""
    whole = [slice(None), slice(None)]
    for place, part in parts:
        spatial = [
            range(*one.indices(size)) for one, size in zip(place[2:], grid.fitted, strict=True)
        ]
        cut_axes = [
            axis
            for axis, (one, size) in enumerate(zip(spatial, grid.fitted, strict=True))
            if len(one) < size
        ]
        axis = cut_axes[0] if cut_axes else _axis_of_least_work(grid)
        box, first = list(whole), 0
        for other, (one, crossing) in enumerate(zip(spatial, crossings, strict=True)):
            start = max(one.start, crossing.seen.start)
            stop = min(one.stop, crossing.seen.stop)
            if start >= stop:
                break
            box.append(slice(start - one.start, stop - one.start))
            if other == axis:
                first = start - crossing.seen.start
        else:
            yield axis, first, part[tuple(box)]


def _axis_of_least_work(grid: OwnGrid) -> int:
    """Return the axis that grows most: interpolated in thin parts, it costs least memory."""
    growth = [have / seen for have, seen in zip(grid.turned, grid.resampled, strict=True)]
    return max(range(len(growth)), key=growth.__getitem__)


def _along(
    slabs: Iterable[tuple[int, int, Tensor]], crossings: list[_Crossing], numbers_of_a_slice: int
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield the axis, where each begins among the image's places, and logits resampled along it.

    Of what came before only the slices are kept that a later place still needs.
    """
    held: Tensor | None = None
    begin = done = 0
    thickness = max(1, _NUMBERS_OF_A_PART // numbers_of_a_slice)
    for axis, first, slab in slabs:
        crossing = crossings[axis]
        if crossing.is_plain:
            yield axis, crossing.inside.start + first, slab
            continue
        begin = first if held is None else begin
        known = slab if held is None else torch.cat([held, slab], axis + 2)
        end = begin + known.shape[axis + 2]
        ready = int(torch.searchsorted(crossing.high, end))
        for start in range(done, ready, thickness):
            some = slice(start, min(start + thickness, ready))
            places = (
                crossing.low[some] - begin,
                crossing.high[some] - begin,
                crossing.weight[some],
            )
            yield axis, crossing.inside.start + start, _mixed(known, axis + 2, places)
        done = ready
        if done < len(crossing.low):
            needed = min(int(crossing.low[done]), end)
            held = known.narrow(axis + 2, needed - begin, end - needed).clone()
            begin = needed
