"""From examinations to what the network sees, the same way every time; done once and kept.

The instruction: read, simulated scanner, one grid, orientation, spacing, size (resize), denoising,
harmonisation, intensity, size (pad). Padding comes last, so that its border does not take part in
the intensities.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.data.boxes import fault_of, note_of, place_boxes, usable_boxes
from wardround.client.data.manifest.cells import ARRAY_FILES
from wardround.client.data.manifest.examination import Examination, Location
from wardround.client.data.manifest.label_words import label_words
from wardround.client.data.preprocessing import geometry
from wardround.client.data.preprocessing.alignment import bring_onto, mismatch
from wardround.client.data.preprocessing.intensity import INTENSITIES, background_of
from wardround.client.data.preprocessing.scanner_shift import generator_of, scanner_of, shift_image
from wardround.client.data.reading import readers
from wardround.client.data.reading.array_files import open_array
from wardround.client.data.reading.boxes.reader import read_boxes
from wardround.client.data.reading.image import (
    Image,
    MaskTarget,
    UnreadableError,
    fill_absent,
    first_held,
)
from wardround.client.data.reading.labels import check_labels
from wardround.client.site.folder import Site
from wardround.common.study.sections.data import AS_STORED, COMMON_ORIENTATION, DataSection
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)

ArrayNames = tuple[tuple[Path, str | None], ...]

_GENTLE_SIGMA = 0.5  # voxels


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


def prepare_case(examination: Examination, site: Site, study: Study) -> Case:
    """Read and prepare one examination.

    Raises:
        DataError: A file cannot be used; says the row and the column.
    """
    data = study.data
    channels = read_channels(examination, site, study)
    first = first_held(channels)  # as it was read: the others are brought onto its grid
    lying: list[Image] = []
    finished: list[NDArray[np.float32]] = []
    named = zip(image_columns(study), channels, strict=True)
    for place, (column, image) in enumerate(named):
        try:
            turned, channel = prepare_channel(image, first, data.of_channel(place))
            lying.append(turned)
            finished.append(channel)
        except UnreadableError as error:
            raise error.at(examination.row, column) from None
    mask, stored = _prepare_mask(examination, first, site, study)
    boxes = _prepare_boxes(examination, (first, lying[0]), site, study)
    stacked = np.concatenate(finished) if len(finished) > 1 else finished[0]
    spacing, is_said = _final_spacing(lying[0], data), lying[0].spacing is not None
    return Case(_tensor(stacked), mask, spacing, is_said, stored, boxes)


def _channels(examination: Examination, site: Site, study: Study) -> Iterator[Image | None]:
    """Yield each channel as the site's scanner took it; None for one that is lacking.

    Raises:
        DataError: A file cannot be used; says the row and the column.
    """
    data = study.data
    scanner = scanner_of(examination, site)
    generator = generator_of(examination, scanner)
    for column, location in zip(image_columns(study), examination.images, strict=True):
        if location is None:
            yield None
            continue
        try:
            image = readers.read_image(location, data.dimensions, data.colour)
        except UnreadableError as error:
            raise error.at(examination.row, column) from None
        _say(image, examination.row, column)
        yield replace(image, array=shift_image(image.array, scanner.shift, generator))


def read_channels(examination: Examination, site: Site, study: Study) -> tuple[Image, ...]:
    """Return the channels of an examination in their own grey values, before any preparation.

    One that it lacks is zeros on the grid of the first that it has.

    Raises:
        DataError: A file cannot be used; says the row and the column.
    """
    return fill_absent(tuple(_channels(examination, site, study)))


def prepare_channels(channels: Sequence[Image], data: DataSection) -> NDArray[np.float32]:
    """Return what the network sees of an examination, ``(C, *spatial)``.

    Args:
        channels: As :func:`read_channels` returned them; their grey values may have been changed.
        data: The study's contract.
    """
    first = first_held(channels)
    return np.concatenate(
        [
            prepare_channel(image, first, data.of_channel(place))[1]
            for place, image in enumerate(channels)
        ]
    )


def grey_channels(channels: Sequence[Image], data: DataSection) -> list[NDArray[np.float32]]:
    """Return each channel on the network's grid, still in its own grey values.

    Everything is done but the harmonisation, the intensity preset, and what follows them.

    Returns:
        A block ``(1, planes, *spatial)`` a channel.
    """
    first = first_held(channels)
    lying = (_oriented(i if i is first else _onto(i, first, data), data) for i in channels)
    return [_on_grid(_at_spacing(image, data, is_mask=False), data) for image in lying]


def prepare_channel(
    image: Image, first: Image, data: DataSection
) -> tuple[Image, NDArray[np.float32]]:
    """Return one channel with its axes turned, and ready for the network.

    Args:
        image: As it was read, ``(planes, *spatial)``.
        first: The first channel as it was read; the others are brought onto its grid.
        data: The contract of this channel, as ``data.of_channel`` gives it.

    Returns:
        The turned image, and ``(planes, *spatial)`` float32: zeros of one that is absent.

    Raises:
        UnreadableError: It cannot be used, or does not lie on the grid of the first channel.
    """
    turned = _oriented(image if image is first else _onto(image, first, data), data)
    block = _at_spacing(turned, data, is_mask=False)
    finished: NDArray[np.float32] = finish_images(block, turned.eight_bit, data)[0]
    return turned, np.zeros_like(finished) if image.is_absent else finished


def _prepare_mask(
    examination: Examination, first: Image | None, site: Site, study: Study
) -> tuple[Tensor | None, StoredMask | None]:
    if examination.mask is None or first is None:
        return None, None
    data, words = study.data, label_words(site, study)
    try:
        mask = readers.read_mask(
            examination.mask,
            data.dimensions,
            words.label_count(study),
            data.ignore_label,
            MaskTarget(data.classes, first, words.classes),
        )
        _say(mask, examination.row, "mask")
        if not mask.is_matched:
            mask = replace(mask, array=words.map_mask(mask.array, study))
        mask, finished = prepare_mask(mask, first, data)
        prepared = _tensor(finished)
        stored = StoredMask(
            _tensor(mask.array[0]),
            resampled_size(mask, data),
            mask.spacing or (1.0,) * data.dimensions,
        )
        return prepared, _unless_same(stored, prepared)
    except UnreadableError as error:
        raise error.at(examination.row, "mask") from None


def _prepare_boxes(
    examination: Examination, images: tuple[Image | None, Image], site: Site, study: Study
) -> Tensor | None:
    """Return the boxes where the first image's voxels went, as it was read and turned."""
    first, turned = images
    place = examination.images[0] if examination.images else None
    if examination.boxes is None or first is None or place is None:
        return None
    words, shape = label_words(site, study), first.array.shape[1:]
    try:
        found = read_boxes(examination.boxes, first, place, study.data, words.classes)
        usable, counts = usable_boxes(found, shape, words, study)
        if fault := fault_of(counts, shape):
            raise UnreadableError(fault)
        if note := note_of(counts):
            logger.info("row %d, column boxes: %s.", examination.row, note)
        return place_boxes(usable, first, turned, study.data)
    except UnreadableError as error:
        raise error.at(examination.row, "boxes") from None


def prepare_mask(mask: Image, first: Image, data: DataSection) -> tuple[Image, NDArray[Any]]:
    """Return a mask with its axes turned, and ``(*spatial)`` as the network sees its image.

    Args:
        mask: As it was read, ``(1, *spatial)``.
        first: The first channel of its image as it was read.
        data: The study's contract.

    Raises:
        UnreadableError: It does not lie on the image's grid.
    """
    mask = _oriented(_onto(mask, first, data, is_mask=True), data)
    return mask, finish_masks(_at_spacing(mask, data, is_mask=True), data)[0, 0]


def _say(image: Image, row: int, column: str) -> None:
    """Write to the site's log what was done to an image while it was read."""
    if image.notes:
        logger.info("row %d, column %s: %s.", row, column, "; ".join(image.notes))


def _unless_same(stored: StoredMask, prepared: Tensor) -> StoredMask | None:
    """Return a stored mask unless the prepared one lies on its grid, voxel by voxel."""
    own = tuple(stored.labels.shape)
    return None if own == tuple(stored.resampled) == tuple(prepared.shape) else stored


def prepare_block(examinations: Sequence[Examination], site: Site, study: Study) -> list[Case]:
    """Prepare examinations that :func:`shared_arrays` says are items of the same arrays.

    Raises:
        UnreadableError: One of them cannot be used; :func:`prepare_case` says which.
    """
    data = study.data
    planes: list[NDArray[np.float32]] = []
    spatial: tuple[int, ...] = ()
    scanners = [scanner_of(e, site) for e in examinations]
    shifted = [
        (place, scanner, generator_of(examinations[place], scanner))
        for place, scanner in enumerate(scanners)
        if scanner.shift
    ]
    for channel in range(len(data.channels)):
        stored = _items([e.held_images[channel] for e in examinations])
        block = readers.sort_planes(stored, data.dimensions, data.colour)
        readers.check_finite(block)
        if spatial and block.shape[2:] != spatial:
            raise mismatch(block.shape[2:], spatial)
        spatial = block.shape[2:]
        for place, scanner, generator in shifted:
            block[place] = shift_image(block[place], scanner.shift, generator)
        own = data.of_channel(channel)
        planes.append(finish_images(block, stored.dtype == np.uint8, own))
    images = _tensor(np.concatenate(planes, axis=1) if len(planes) > 1 else planes[0])
    masks: Sequence[Tensor | None] = [None] * len(examinations)
    stored_masks: list[StoredMask | None] = [None] * len(examinations)
    if examinations[0].mask is not None:
        stored = _items([e.mask for e in examinations if e.mask is not None])
        labels = readers.sort_labels(stored, data.dimensions)
        if labels.shape[2:] != spatial:
            raise mismatch(labels.shape[2:], spatial)
        words = label_words(site, study)
        labels = check_labels(labels, words.label_count(study), data.ignore_label)
        labels = words.map_mask(labels, study)
        prepared = _tensor(finish_masks(labels, data)[:, 0]).unbind()
        size, unit = _resized(spatial, data), (1.0,) * data.dimensions
        stored_masks = [
            _unless_same(StoredMask(own, size, unit), mask)
            for own, mask in zip(_tensor(labels[:, 0]).unbind(), prepared, strict=True)
        ]
        masks = prepared
    spacing = tuple(have / now for have, now in zip(spatial, _resized(spatial, data), strict=True))
    parts = zip(images.unbind(), masks, stored_masks, strict=True)
    return [Case(image, mask, spacing, stored=own) for image, mask, own in parts]


def shared_arrays(examination: Examination, data: DataSection) -> ArrayNames | None:
    """Return the arrays that an examination's images and mask are items of.

    Examinations of the same arrays can be prepared in one sweep. None where a file has to be
    opened for this examination alone, or where it has to be placed in space.
    """
    if data.spacing or data.orientation not in (None, AS_STORED) or examination.boxes is not None:
        return None
    if len(examination.held_images) < len(examination.images):
        return None  # its channels stand at other places than those of the others
    masks = () if examination.mask is None else (examination.mask,)
    locations = (*examination.held_images, *masks)
    if any(
        location.index is None or location.path.suffix.lower() not in ARRAY_FILES
        for location in locations
    ):
        return None
    return tuple((location.path, location.array) for location in locations)


def image_columns(study: Study) -> tuple[str, ...]:
    """Return how messages call the image columns of a manifest."""
    names = study.data.channels
    if len(names) == 1:
        return ("image",)
    return tuple(name if name == "image" else f"image.{name}" for name in names)


def finish_images(
    block: NDArray[np.float32], eight_bit: bool, data: DataSection
) -> NDArray[np.float32]:
    """Resize, denoise, harmonise, normalise and pad images ``(N, planes, *spatial)`` of a channel.

    Args:
        data: The contract of this channel, as ``data.of_channel`` gives it.
    """
    block = _on_grid(block, data)
    if data.harmonisation.is_asked:
        from wardround.client.data.preprocessing.harmonisation import harmonised

        block = harmonised(block, data)
    block = INTENSITIES[data.intensity].normalise(block, eight_bit, data)
    if data.size is not None:
        block = geometry.centre_fit(block, data.size, background_of(data))
    return block.astype(np.float32, copy=False)


def _on_grid(block: NDArray[np.float32], data: DataSection) -> NDArray[np.float32]:
    block = geometry.resize_images(block, _resized(block.shape[2:], data))
    return denoised(block) if data.denoise else block


def finish_masks(block: NDArray[Any], data: DataSection) -> NDArray[Any]:
    """Resize and pad masks ``(N, 1, *spatial)`` as their images."""
    block = geometry.resize_masks(block, _resized(block.shape[2:], data))
    return block if data.size is None else geometry.centre_fit(block, data.size, 0)


def denoised(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take out isolated pixels: a median of 3x3 in 2D, a Gaussian of half a voxel in 3D.

    Args:
        block: ``(N, C, *spatial)``.

    Returns:
        The same shape.
    """
    from scipy.ndimage import gaussian_filter, median_filter

    smooth: NDArray[np.float32] = (
        median_filter(block, size=(1, 1, 3, 3))
        if block.ndim == 4
        else gaussian_filter(block, (0, 0, *(_GENTLE_SIGMA,) * 3))
    )
    return smooth


def _resized(spatial: tuple[int, ...], data: DataSection) -> tuple[int, ...]:
    return data.size if data.size is not None and data.fit == "resize" else spatial


def _onto(image: Image, first: Image, data: DataSection, is_mask: bool = False) -> Image:
    return bring_onto(image, first, data.resample_to == "image", is_mask)


def _oriented(image: Image, data: DataSection) -> Image:
    """Return a volume with its axes as the study has them; all sites' alike where it says nothing.

    Raises:
        UnreadableError: Its header could say how it lies, and does not.
    """
    if data.dimensions == 2 or data.orientation == AS_STORED:
        return image
    if data.orientation is None and image.affine is None and not image.is_unplaced:
        return image  # an array, whose format says nothing of it
    return geometry.reorient(image, data.orientation or COMMON_ORIENTATION)


def _at_spacing(image: Image, data: DataSection, is_mask: bool) -> NDArray[Any]:
    block = image.array[np.newaxis]
    if data.spacing is None:
        return block
    if image.spacing is None:
        msg = (
            f"the file does not say its voxel size, but data.spacing = {list(data.spacing)}: "
            "store it as NIfTI or DICOM."
        )
        raise UnreadableError(msg)
    size = geometry.size_at_spacing(block.shape[2:], image.spacing, data.spacing)
    resize = geometry.resize_masks if is_mask else geometry.resize_images
    return resize(block, size)


def resampled_size(image: Image, data: DataSection) -> tuple[int, ...]:
    """Return the spatial size of a turned image after resampling and resizing, before padding."""
    size: tuple[int, ...] = image.array.shape[1:]
    if data.spacing is not None and image.spacing is not None:
        size = geometry.size_at_spacing(size, image.spacing, data.spacing)
    return _resized(size, data)


def _final_spacing(image: Image, data: DataSection) -> tuple[float, ...]:
    """Return the voxel size after resampling: the same millimetres over the new count."""
    spatial = image.array.shape[1:]
    spacing = image.spacing or (1.0,) * len(spatial)
    size = resampled_size(image, data)
    return tuple(step * have / now for step, have, now in zip(spacing, spatial, size, strict=True))


def _items(locations: Sequence[Location]) -> NDArray[Any]:
    values = open_array(locations[0].path, locations[0].array)
    indices = np.array([location.index for location in locations])
    if values.ndim < 2 or indices.max() >= len(values):
        msg = "an item is not in the array: mend the number after '#'."
        raise UnreadableError(msg)
    return np.asarray(values[indices])


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))
