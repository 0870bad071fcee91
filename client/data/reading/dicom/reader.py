"""The way in: a DICOM file or folder as an image, or as a mask."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wardround.client.data.reading.dicom import kinds
from wardround.client.data.reading.dicom.files import Found, find_datasets
from wardround.client.data.reading.dicom.frames import (
    Frame,
    check_frames,
    frame_of_reference,
    gap_of,
    headers_of,
    slice_affine,
)
from wardround.client.data.reading.dicom.frames import place_of as place_of_frame
from wardround.client.data.reading.dicom.pixels import decoded
from wardround.client.data.reading.dicom.series import (
    Choice,
    images_of,
    masks_of,
    parse_choice,
    place_of,
)
from wardround.client.data.reading.dicom.stacking import stacked
from wardround.client.data.reading.dicom.uptake import suv_factors
from wardround.client.data.reading.dicom.values import rescaled, valued
from wardround.client.data.reading.dicom.volumes import one_volume
from wardround.client.data.reading.image import MaskTarget, Stored, UnreadableError


def read_dicom(path: Path, dimensions: int, chosen: str | None = None) -> Stored:
    """Return the image of a file or series.

    Args:
        path: A folder with the files of one series, or one file.
        dimensions: 2 wants one frame, as (rows, columns[, 3]); 3 gives (x, y, z) with an affine.
        chosen: What the cell says after the path where there are several, e.g. "series=4".

    Raises:
        UnreadableError: It is not one consistent series of images.
    """
    choice = parse_choice(chosen)
    return _image(find_datasets(path, choice.series), dimensions, choice, is_mask=False)


def read_dicom_mask(
    path: Path, dimensions: int, target: MaskTarget, chosen: str | None = None
) -> Stored:
    """Return a mask: a segmentation (SEG), a structure set (RTSTRUCT), or images of labels.

    Args:
        path: A file, or a folder that holds one such object.
        dimensions: Of the study.
        target: The study's classes, and the image that the mask is of.
        chosen: As for :func:`read_dicom`.

    Raises:
        UnreadableError: It cannot be one mask of these classes.
    """
    choice = parse_choice(chosen)
    found = find_datasets(path, choice.series)
    objects = masks_of(found)
    if not objects:
        return _image(found, dimensions, choice, is_mask=True)
    if len(objects) > 1:
        msg = f"it holds {len(objects)} segmentations or structure sets: name the file of one."
        raise UnreadableError(msg)
    if kinds.kind_of(objects[0]) == "segmentation":
        from wardround.client.data.reading.dicom.segmentation import read_segmentation

        return read_segmentation(objects[0], dimensions, target)
    from wardround.client.data.reading.dicom.structures import read_structures

    return read_structures(objects[0], dimensions, target)


def read_dicom_whole(path: Path, dimensions: int, chosen: str | None = None) -> Stored:
    """Return what a file or series holds, image or mask, to see that it is whole.

    Raises:
        UnreadableError: As for :func:`read_dicom` and :func:`read_dicom_mask`.
    """
    if masks_of(find_datasets(path, parse_choice(chosen).series)):
        return read_dicom_mask(path, dimensions, MaskTarget(), chosen)
    return read_dicom(path, dimensions, chosen)


def _image(found: Found, dimensions: int, choice: Choice, is_mask: bool) -> Stored:
    datasets, notes = images_of(found, choice)
    uptake: list[float | None] = [None] * len(datasets)
    if not is_mask and kinds.is_pet(datasets[0]):
        uptake = [*suv_factors(datasets)]
    frames = [
        frame
        for dataset, factor in zip(datasets, uptake, strict=True)
        for frame in _frames(dataset, dimensions, factor, is_mask)
    ]
    if dimensions == 3:
        if choice.frame is not None:
            msg = "one frame is no volume for a 3D study: leave out #frame."
            raise UnreadableError(msg)
        stored = stacked(one_volume(frames, choice), is_mask)
    else:
        stored = _flat(frames, choice, len(datasets))
    return replace(stored, notes=notes + stored.notes)


def _frames(dataset: Any, dimensions: int, uptake: float | None, is_mask: bool) -> list[Frame]:
    pixels = decoded(dataset, as_indices=is_mask)
    check_frames(dataset, dimensions, len(pixels))
    is_alone = len(pixels) == 1
    frames = []
    for stored, header in zip(pixels, headers_of(dataset, len(pixels)), strict=True):
        if is_mask:
            values = stored if stored.ndim == 3 else rescaled(stored, header)
        else:
            values = valued(stored, header, uptake)
        frames.append(Frame(values, place_of_frame(header, is_alone), header))
    return frames


def _flat(frames: list[Frame], choice: Choice, files: int) -> Stored:
    """Return the one frame of a 2D study, or the one that is chosen."""
    if choice.volume is not None:
        frames = one_volume(frames, choice)
    if choice.frame is not None:
        if files > 1:
            frames = _by_place(one_volume(frames, Choice()) if choice.volume is None else frames)
        frames = [frames[place_of(choice.frame, len(frames))]]
    if len(frames) != 1:
        what = "the series has" if files > 1 else "the file has"
        msg = (
            f"{what} {len(frames)} frames for a 2D study: name one in the cell, as in "
            f"{'FOLDER' if files > 1 else 'FILE'}#frame=0 or #frame=middle."
        )
        raise UnreadableError(msg)
    place, header = frames[0].place, frames[0].header
    affine = slice_affine(place, gap_of(header))
    return Stored(frames[0].pixels, place.spacing, affine, frame=frame_of_reference(header.dataset))


def _by_place(frames: list[Frame]) -> list[Frame]:
    depths = []
    for frame in frames:
        normal, position = frame.place.normal, frame.place.position
        if normal is None or position is None:
            msg = (
                f"the {len(frames)} images of the folder do not say where they lie: name one of "
                "the files."
            )
            raise UnreadableError(msg)
        depths.append(float(position @ normal))
    return [frames[number] for number in np.argsort(depths, kind="stable")]
