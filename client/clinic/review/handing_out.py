"""A queue's images and masks in a folder, named by their cases, for whoever edits files."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.inference.prediction import Segmented
from wardround.client.clinic.inference.results import write_mask
from wardround.client.clinic.review.cases import Case
from wardround.client.clinic.review.masks import corrected_place, image_of, read_labels
from wardround.client.clinic.review.opinions import Committee
from wardround.client.clinic.review.taking import Desk
from wardround.client.data.manifest.corrections import Correction
from wardround.client.data.reading.image import Image
from wardround.common.errors import DataError, InputError
from wardround.common.files.atomic import make_private_folder

_LARGEST_BYTE = 255


def hand_out(desk: Desk, folder: Path, committee: Committee | None = None) -> int:
    """Write image and mask of each case of a queue; return how many.

    The mask is what counts now, or what a model says where nothing counts, or empty.

    Args:
        desk: Of a segmentation.
        folder: New or empty; only its owner may enter it, for it holds patients' images.
        committee: The model; None leaves masks empty where there is none.

    Raises:
        InputError: The study has no masks, or the folder holds something.
        DataError: An image cannot be read; says its row.
    """
    if desk.study.task.column != "mask":
        msg = (
            "the study asks for classes, and there is nothing to draw: fill in the reader's list, "
            "or use 'wardround site review page'."
        )
        raise InputError(msg)
    if folder.exists() and any(folder.iterdir()):
        msg = f"{folder} holds something: give a new folder."
        raise InputError(msg)
    make_private_folder(folder)
    last = desk.listed.corrections.last("mask")
    for name, case in desk.cases.items():
        try:
            image = image_of(case, desk.study)
            labels = labels_of(case, image, desk, last, committee)
        except DataError as error:
            msg = f"{desk.listed.place(case)}: {error}"
            raise DataError(msg) from None
        source = case.examination.held_images[0].path
        found = Segmented(desk.study.data.classes, labels, image.affine, image.spacing, (), None)
        write_mask(folder, name, found, source)
        grey = Segmented(desk.study.data.classes, grey_of(image), image.affine, None, (), None)
        write_mask(folder, f"{name}-image", grey, source)
    return len(desk.cases)


def grey_of(image: Image) -> NDArray[np.uint8]:
    """Return ``(*spatial)`` grey values of the first plane, 99 % of them spread over the range."""
    plane = image.array[0].astype(np.float64)
    low, high = np.percentile(plane, (0.5, 99.5))
    scaled = (plane - low) / max(float(high - low), 1e-9) * _LARGEST_BYTE
    return np.asarray(np.clip(scaled, 0, _LARGEST_BYTE), dtype=np.uint8)


def labels_of(
    case: Case,
    image: Image,
    desk: Desk,
    last: Mapping[str, Correction],
    committee: Committee | None = None,
) -> NDArray[np.uint8]:
    """Return what counts of a case on the grid of its image as it was read.

    Args:
        last: What counts of each case that was corrected.
    """
    place = case.examination.mask
    if case.id in last:
        place = corrected_place(desk.site, last[case.id])
    if place is not None:
        return read_labels(place, image, desk.site, desk.study)
    if committee is not None:
        return committee.mask_of(case)
    return np.zeros(image.array.shape[1:], dtype=np.uint8)
