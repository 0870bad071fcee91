"""Masks of cases on the grid of their images, whoever drew them and in whatever file."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.review.cases import Case
from wardround.client.data.manifest.corrections import MASK_FOLDER, Correction
from wardround.client.data.manifest.examination import Location
from wardround.client.data.manifest.label_words import label_words
from wardround.client.data.preprocessing.alignment import bring_onto
from wardround.client.data.reading.image import Image, MaskTarget, UnreadableError
from wardround.client.data.reading.readers import read_image, read_mask
from wardround.client.site.folder import Site
from wardround.common.errors import InputError, WardroundError
from wardround.common.study.study import Study


def image_of(case: Case, study: Study) -> Image:
    """Return the first image of a case as it was read.

    Raises:
        UnreadableError: It cannot be read.
    """
    return read_image(case.examination.held_images[0], study.data.dimensions, study.data.colour)


def read_labels(place: Location, image: Image, site: Site, study: Study) -> NDArray[np.uint8]:
    """Return a mask, ``(*spatial)`` of its image as that was read.

    Where the study resamples channels, a mask on another grid is brought onto the image's; else it
    is refused, as it would be by the training.

    Raises:
        UnreadableError: It cannot be read, lies elsewhere, or holds labels that are none.
    """
    data, words = study.data, label_words(site, study)
    target = MaskTarget(data.classes, image, words.classes)
    labels = words.label_count(study)
    mask = read_mask(place, data.dimensions, labels, data.ignore_label, target)
    array = mask.array if mask.is_matched else words.map_mask(mask.array, study)
    moved = Image(
        array, mask.spacing, mask.affine, mask.eight_bit, mask.is_unplaced, mask.is_turned,
        mask.rounding,
    )  # fmt: skip
    resamples = data.resample_to == "image"
    return np.asarray(bring_onto(moved, image, resamples, is_mask=True).array[0], dtype=np.uint8)


def read_foreign(path: Path, image: Image, site: Site, study: Study) -> NDArray[np.uint8]:
    """Return a mask of somebody's file; as :func:`read_labels`, whatever the file does.

    Raises:
        InputError: It is no mask of the image.
    """
    try:
        return read_labels(Location(path), image, site, study)
    except UnreadableError as error:
        raise InputError(str(error)) from None
    except WardroundError:
        raise
    except Exception as error:  # decoders raise of every kind, and quote what they read
        msg = f"it cannot be read as a mask ({type(error).__name__}): save it again."
        raise InputError(msg) from None


def corrected_place(site: Site, one: Correction) -> Location:
    """Return where the mask of a correction lies."""
    return Location(site.corrections_path.with_name(MASK_FOLDER) / one.new)
