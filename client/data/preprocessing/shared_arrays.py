"""Examinations that are items of the same arrays, prepared in one sweep."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.data.manifest.cells import ARRAY_FILES
from wardround.client.data.manifest.examination import Examination, Location
from wardround.client.data.manifest.label_words import label_words
from wardround.client.data.preprocessing.alignment import mismatch
from wardround.client.data.preprocessing.case import Case, StoredMask, as_tensor, unless_same
from wardround.client.data.preprocessing.scanner_shift import generator_of, scanner_of, shift_image
from wardround.client.data.preprocessing.steps import finish_images, finish_masks, resized
from wardround.client.data.reading import readers
from wardround.client.data.reading.array_files import open_array
from wardround.client.data.reading.image import (
    UnreadableError,
)
from wardround.client.data.reading.labels import check_labels
from wardround.client.site.folder import Site
from wardround.common.study.sections.data import AS_STORED, DataSection
from wardround.common.study.study import Study

ArrayNames = tuple[tuple[Path, str | None], ...]


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
    images = as_tensor(np.concatenate(planes, axis=1) if len(planes) > 1 else planes[0])
    masks, stored_masks = _masks(examinations, spatial, site, study)
    spacing = tuple(have / now for have, now in zip(spatial, resized(spatial, data), strict=True))
    parts = zip(images.unbind(), masks, stored_masks, strict=True)
    return [Case(image, mask, spacing, stored=own) for image, mask, own in parts]


def _masks(
    examinations: Sequence[Examination], spatial: tuple[int, ...], site: Site, study: Study
) -> tuple[Sequence[Tensor | None], Sequence[StoredMask | None]]:
    """Return each examination's mask as it is trained with, and as it is stored where they differ.

    Args:
        spatial: Of the images as they were read.
    """
    data = study.data
    if examinations[0].mask is None:
        nobody = [None] * len(examinations)
        return nobody, nobody
    stored = _items([e.mask for e in examinations if e.mask is not None])
    labels = readers.sort_labels(stored, data.dimensions)
    if labels.shape[2:] != spatial:
        raise mismatch(labels.shape[2:], spatial)
    words = label_words(site, study)
    labels = check_labels(labels, words.label_count(study), data.ignore_label)
    labels = words.map_mask(labels, study)
    prepared = as_tensor(finish_masks(labels, data)[:, 0]).unbind()
    size, unit = resized(spatial, data), (1.0,) * data.dimensions
    own = as_tensor(labels[:, 0]).unbind()
    kept = [
        unless_same(StoredMask(one, size, unit), mask)
        for one, mask in zip(own, prepared, strict=True)
    ]
    return prepared, kept


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


def _items(locations: Sequence[Location]) -> NDArray[Any]:
    values = open_array(locations[0].path, locations[0].array)
    indices = np.array([location.index for location in locations])
    if values.ndim < 2 or indices.max() >= len(values):
        msg = "an item is not in the array: mend the number after '#'."
        raise UnreadableError(msg)
    return np.asarray(values[indices])
