"""Boxes as a network sees them: in the study's classes, and moved wherever their image was moved.

A box is a row of numbers: its class, lo of each axis, hi of each axis. Places are edges of voxels:
a box over the voxels 3 to 5 reaches from 3 to 6. Axes are those of the image's array: of a picture
(y, x), of a volume (x, y, z).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.data.manifest.label_words import LabelWords
from wardround.client.data.preprocessing import geometry
from wardround.client.data.reading.boxes.found import Corners, FoundBoxes
from wardround.client.data.reading.image import Image
from wardround.client.tasks.words import tidy, word_among
from wardround.common.study.sections.data import DataSection
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.preprocessing.own_grid import OwnGrid

NO_BOX = -1.0  # the class of a row that fills a batch up
LEAST_LEFT = 0.25  # of a box's size after cropping: of less nobody could say what it is
_LEAST_SIDE = 1e-3  # voxels; the numbers of a network do not tell a thinner box from a line
_LEFT_OUT = -2  # a word that the site has given to no class of the study

Boxes = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BoxCounts:
    """What is to be said of the boxes of one image.

    Attributes:
        classes: How many can be used, by class.
        sizeless: Without a size along an axis: left out.
        reversed: Whose last corner lies before the first.
        outside: Which lie outside the image altogether.
        cut: Of which a part lies outside: cut off.
        unknown: Of a class that the study does not list.
        other: Of a word that the site has given to no class of the study, or crowds: left out.
        misfit: Whether the file says another size of the image than the image has.
    """

    classes: Counter[str]
    sizeless: int = 0
    reversed: int = 0
    outside: int = 0
    cut: int = 0
    unknown: int = 0
    other: int = 0
    misfit: bool = False


def usable_boxes(
    found: FoundBoxes, shape: Sequence[int], words: LabelWords, study: Study
) -> tuple[Boxes, BoxCounts]:
    """Return the boxes that can be used, ``(M, 1 + 2 dims)``, and what is to be said of all.

    Args:
        found: As a file says them.
        shape: ``(*spatial)`` of the image as it was read.
        words: The site's for the classes.
        study: Says the classes.
    """
    dims, sides = len(shape), np.array(shape, dtype=np.float64)
    classes = np.array([_class_of(name, words, study) for name in found.names], dtype=np.int64)
    low, high = found.corners[:, :dims], found.corners[:, dims:]
    wanted, known = classes != _LEFT_OUT, classes >= 0
    is_reversed = wanted & (high < low).any(axis=1)
    sizeless = wanted & ~is_reversed & (high - low < _LEAST_SIDE).any(axis=1)
    whole = wanted & ~is_reversed & ~sizeless
    outside = whole & ((high < _LEAST_SIDE) | (low > sides - _LEAST_SIDE)).any(axis=1)
    cut = whole & ~outside & ((low < 0) | (high > sides)).any(axis=1)
    kept = whole & ~outside & known
    rows = np.concatenate(
        [classes[kept, None], np.maximum(low[kept], 0), np.minimum(high[kept], sides)], axis=1
    )
    counts = BoxCounts(
        Counter(study.data.classes[index] for index in classes[kept].tolist()),
        int(sizeless.sum()),
        int(is_reversed.sum()),
        int(outside.sum()),
        int(cut.sum()),
        int((classes == -1).sum()),
        int((~wanted).sum()) + found.passed_over,
        found.size is not None and tuple(found.size) != tuple(shape),
    )
    return rows, counts


def fault_of(counts: BoxCounts, shape: Sequence[int]) -> str:
    """Return why the boxes of an image are refused, with the remedy; "" where they are not."""
    if counts.misfit:
        return (
            "its file says another size of the image than the image has: take the boxes of this "
            "image, or the image as it was when they were drawn."
        )
    if counts.unknown:
        return (
            f"{_boxes(counts.unknown)} of a class that the study does not list: add it to "
            "data.classes, or to [labels.words] of site.toml."
        )
    if counts.reversed:
        return (
            f"{_boxes(counts.reversed)} with the last corner before the first: write first x0, y0, "
            "then x1, y1."
        )
    if counts.outside:
        by = " x ".join(str(side) for side in (shape[::-1] if len(shape) == 2 else shape))
        return (
            f"{_boxes(counts.outside)} outside the image, which has {by}: write x before y, in "
            "voxels of the image as it is stored."
        )
    return ""


def note_of(counts: BoxCounts) -> str:
    """Return what was done to the boxes of an image; "" where nothing was."""
    said = [
        (counts.sizeless, "without a size left out"),
        (counts.cut, "cut off at the edge of the image"),
        (counts.other, "of no class of the study, or of a crowd, left out"),
    ]
    return "; ".join(f"{_boxes(count)} {what}" for count, what in said if count)


def _boxes(count: int) -> str:
    return "1 box" if count == 1 else f"{count} boxes"


def _class_of(name: str, words: LabelWords, study: Study) -> int:
    plain = " ".join(tidy(name).split())
    if plain.casefold() in words.others:
        return _LEFT_OUT
    text = words.classes.get(plain.casefold(), plain)
    found = word_among(text, study.data.classes)
    return -1 if found is None else study.data.classes.index(found)


def place_boxes(boxes: Boxes, image: Image, turned: Image, data: DataSection) -> Tensor:
    """Return the boxes of an image where preprocessing has put what they are about.

    Axes are turned, voxels resampled, resized, cropped and padded as those of the image. What was
    cropped away is cut off; a box of which less than a quarter is left is taken away.

    Args:
        boxes: ``(M, 1 + 2 dims)`` in voxels of the image as it was read.
        image: As it was read.
        turned: The same after its axes were turned.
        data: Of the study.

    Returns:
        ``(M', 1 + 2 dims)`` float32 in voxels of what the network sees.
    """
    from wardround.client.data.preprocessing.steps import resampled_size

    dims = len(image.array.shape) - 1
    classes, low, high = boxes[:, :1], boxes[:, 1 : 1 + dims], boxes[:, 1 + dims :]
    if turned is not image and image.affine is not None and turned.affine is not None:
        turn = geometry.turn_between(image.affine, turned.affine)
        low, high = _turned(low, high, turn, image.array.shape[1:])
    resampled = resampled_size(turned, data)
    scale = np.array(resampled) / np.array(turned.array.shape[1:])
    low, high = low * scale, high * scale
    fitted = resampled if data.size is None else data.size
    shift = np.array([_shift(have, want) for have, want in zip(resampled, fitted, strict=True)])
    low, high = low + shift, high + shift
    whole = (high - low).prod(axis=1)
    low, high = np.maximum(low, 0), np.minimum(high, np.array(fitted))
    left = np.maximum(high - low, 0).prod(axis=1)
    stays = left >= LEAST_LEFT * whole
    placed = np.concatenate([classes, low, high], axis=1)[stays]
    return torch.from_numpy(placed.astype(np.float32))


def boxes_in_own_grid(boxes: Boxes, grid: "OwnGrid") -> Boxes:
    """Return boxes that a network has found where they lie in the image as it was read.

    Args:
        boxes: ``(P, n + 2 dims)``: what stands before the corners stays as it is.
        grid: The way back, as ``prepare_images`` gives it.

    Returns:
        The same shape, in voxels of the image as it was read.
    """
    dims = len(grid.shape)
    before, low, high = boxes[:, : -2 * dims], boxes[:, -2 * dims : -dims], boxes[:, -dims:]
    pairs = zip(grid.resampled, grid.fitted, strict=True)
    shift = np.array([_shift(have, want) for have, want in pairs])
    scale = np.array(grid.turned) / np.array(grid.resampled)
    low, high = (low - shift) * scale, (high - shift) * scale
    if grid.turn is not None:
        low, high = _turned(low, high, grid.turn, grid.turned)
    sides = np.array(grid.shape, dtype=np.float64)
    return np.concatenate([before, np.clip(low, 0, sides), np.clip(high, 0, sides)], axis=1)


def _shift(have: int, want: int) -> int:
    """Return by how much voxels move where an axis is cropped or padded around its centre."""
    kept = min(have, want)
    return (want - kept) // 2 - (have - kept) // 2


def _turned(
    low: Corners, high: Corners, turn: NDArray[Any], shape: Sequence[int]
) -> tuple[Corners, Corners]:
    """Return corners with the axes in another order and direction, as nibabel turns an array."""
    new_low, new_high = np.empty_like(low), np.empty_like(high)
    for old, (new, flip) in enumerate(turn):
        ends = (low[:, old], high[:, old])
        if flip < 0:
            ends = (shape[old] - high[:, old], shape[old] - low[:, old])
        new_low[:, int(new)], new_high[:, int(new)] = ends
    return new_low, new_high


def stack_boxes(boxes: Sequence[Tensor], dimensions: int) -> Tensor:
    """Return the targets of N images, ``(N, M, 1 + 2 dims)`` float32, M at least 1.

    M is the number of boxes of the image that has most; rows of class -1 fill the others up.
    """
    most = max([1, *(len(rows) for rows in boxes)])
    stacked = torch.zeros(len(boxes), most, 1 + 2 * dimensions)
    stacked[..., 0] = NO_BOX
    for place, rows in enumerate(boxes):
        stacked[place, : len(rows)] = rows
    return stacked
