"""From examinations to what the network sees, the same way every time; done once and kept.

The instruction: read, simulated scanner, one grid, orientation, spacing, size (resize), denoising,
harmonisation, intensity, size (pad). Padding comes last, so that its border does not take part in
the intensities.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.data.boxes import fault_of, note_of, place_boxes, usable_boxes
from wardround.client.data.manifest.examination import Examination
from wardround.client.data.manifest.label_words import label_words
from wardround.client.data.preprocessing.case import Case, StoredMask, as_tensor, unless_same
from wardround.client.data.preprocessing.scanner_shift import generator_of, scanner_of, shift_image
from wardround.client.data.preprocessing.steps import (
    at_spacing,
    final_spacing,
    finish_images,
    finish_masks,
    on_grid,
    onto_grid,
    oriented,
    resampled_size,
)
from wardround.client.data.reading import readers
from wardround.client.data.reading.boxes.reader import read_boxes
from wardround.client.data.reading.image import (
    Image,
    MaskTarget,
    UnreadableError,
    fill_absent,
    first_held,
)
from wardround.client.site.folder import Site
from wardround.common.study.sections.data import DataSection
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)


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
    spacing, is_said = final_spacing(lying[0], data), lying[0].spacing is not None
    return Case(as_tensor(stacked), mask, spacing, is_said, stored, boxes)


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
    lying = (oriented(i if i is first else onto_grid(i, first, data), data) for i in channels)
    return [on_grid(at_spacing(image, data, is_mask=False), data) for image in lying]


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
    turned = oriented(image if image is first else onto_grid(image, first, data), data)
    block = at_spacing(turned, data, is_mask=False)
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
        prepared = as_tensor(finished)
        stored = StoredMask(
            as_tensor(mask.array[0]),
            resampled_size(mask, data),
            mask.spacing or (1.0,) * data.dimensions,
        )
        return prepared, unless_same(stored, prepared)
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
    mask = oriented(onto_grid(mask, first, data, is_mask=True), data)
    return mask, finish_masks(at_spacing(mask, data, is_mask=True), data)[0, 0]


def _say(image: Image, row: int, column: str) -> None:
    """Write to the site's log what was done to an image while it was read."""
    if image.notes:
        logger.info("row %d, column %s: %s.", row, column, "; ".join(image.notes))


def image_columns(study: Study) -> tuple[str, ...]:
    """Return how messages call the image columns of a manifest."""
    names = study.data.channels
    if len(names) == 1:
        return ("image",)
    return tuple(name if name == "image" else f"image.{name}" for name in names)
