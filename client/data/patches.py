"""Random patches of an image, some of them centred on what is to be found."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from wardround.client.data.preprocessing.case import Case
from wardround.common.study.study import Study

MOST_POSITIONS = 4096  # evenly spaced; 96 kB a volume instead of 24 bytes for each of its voxels
_FEWEST_OF_A_CLASS = 256


class PatchDrawer:
    """Draws patches of a cohort's images; what it finds out of an image once it keeps."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._foreground: dict[int, tuple[Tensor, ...]] = {}
        self._darkest: dict[int, float] = {}  # of images smaller than a patch

    def draw(self, index: int, case: Case, generator: Generator) -> list[tuple[Tensor, Tensor]]:
        """Return patches of an image, each with that of its mask.

        Args:
            index: Of the image in its cohort.
            case: Image ``(C, *spatial)`` and mask ``(*spatial)``.
            generator: Of the CPU.

        Returns:
            ``training.patches_per_image`` of images ``(C, *patch_size)`` and masks
            ``(*patch_size)``.

        Raises:
            TypeError: The study asks for no patches, or there is no mask.
        """
        training = self._study.training
        size = training.patch_size
        if size is None or case.mask is None:
            msg = "patches need a size and a mask"
            raise TypeError(msg)
        image = case.image
        if is_smaller(image, size):
            if index not in self._darkest:  # a whole volume is read for it
                self._darkest[index] = float(image.min())
            image = pad_to(image, size, self._darkest[index])
        mask = pad_to(case.mask, size, 0)
        if index not in self._foreground:
            self._foreground[index] = foreground_positions(mask, self._study.class_count)
        starts = draw_starts(
            mask.shape,
            size,
            self._foreground[index],
            (training.patches_per_image, training.foreground_fraction),
            generator,
        )
        return [(crop(image, start, size), crop(mask, start, size)) for start in starts]


def foreground_positions(mask: Tensor, class_count: int) -> tuple[Tensor, ...]:
    """Return ``(P, dimensions)`` places of voxels of each foreground class that the mask holds.

    They are thinned out evenly: 4096 places of all classes, at least 256 of each.

    Args:
        mask: ``(*spatial)`` class indices.
        class_count: Of the study; what lies above it is no class but what nobody annotated.
    """
    counts = torch.bincount(mask.flatten().int())[1:class_count]
    labels = counts.nonzero().flatten().add(1).tolist()
    most = max(MOST_POSITIONS // max(len(labels), 1), _FEWEST_OF_A_CLASS)
    places = []
    for label in labels:
        positions = torch.nonzero(mask == label)
        step = -(-len(positions) // most)
        places.append(positions[::step].clone())
    return tuple(places)


def draw_starts(
    spatial: Sequence[int],
    size: Sequence[int],
    foreground: Sequence[Tensor],
    fractions: tuple[int, float],
    generator: Generator,
) -> Tensor:
    """Draw the first corners of patches.

    Args:
        spatial: Size of the image, at least ``size`` along each axis.
        size: Size of the patches.
        foreground: ``(P, dimensions)`` positions of each class, a class being drawn first: a small
            lesion is met as often as the organ beside it. None: all patches lie anywhere.
        fractions: How many patches, and the chance that one is centred on a foreground voxel.
        generator: Of the CPU.

    Returns:
        ``(patches, dimensions)`` int64; every patch lies inside the image.
    """
    count, chance = fractions
    room = torch.tensor([have - want for have, want in zip(spatial, size, strict=True)])
    starts = (torch.rand(count, len(room), generator=generator) * (room + 1)).long()
    if not foreground:
        return torch.minimum(starts, room)
    chosen = _drawn_positions(foreground, count, generator)
    centred = chosen - torch.tensor(size) // 2
    is_centred = torch.rand(count, 1, generator=generator) < chance
    return torch.where(is_centred, centred, starts).clamp(min=0).minimum(room)


def _drawn_positions(foreground: Sequence[Tensor], count: int, generator: Generator) -> Tensor:
    """Return ``(count, dimensions)`` positions: of each, first the class, then the voxel."""
    if len(foreground) == 1:
        (only,) = foreground
        return only[torch.randint(len(only), (count,), generator=generator)]
    classes = torch.randint(len(foreground), (count,), generator=generator).tolist()
    places = torch.rand(count, generator=generator).tolist()
    return torch.stack(
        [
            foreground[label][int(place * len(foreground[label]))]
            for label, place in zip(classes, places, strict=True)
        ]
    )


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
