"""From the DICOM objects at a place to the images of one series, with a word on what was left.

A cell of the manifest chooses where there are several: ``study/#series=4`` is the series of number
4 of a folder, ``cine.dcm#frame=17`` the 18th frame, ``cine.dcm#frame=middle`` the middle one,
``dynamic/#volume=2`` the third volume of a series that passes each place several times. They may be
joined: ``study/#series=4#volume=0``.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from wardround.client.data.reading.dicom import kinds
from wardround.client.data.reading.dicom.files import Found
from wardround.client.data.reading.image import UnreadableError

_MASK_KINDS: tuple[kinds.Kind, ...] = ("segmentation", "structures")
_PART = re.compile(r"^(series|volume|frame)=(\d{1,9}|middle)$")


@dataclass(frozen=True, slots=True)
class Choice:
    """What is meant; None where the cell leaves it open.

    Attributes:
        series: The SeriesNumber.
        volume: Counted from 0, in the order of what the volumes differ in.
        frame: Counted from 0: as stored in one file, by place in a folder.
    """

    series: int | None = None
    volume: int | None = None
    frame: int | Literal["middle"] | None = None


def parse_choice(text: str | None) -> Choice:
    """Return what a cell chooses after the path.

    Raises:
        UnreadableError: It chooses twice, or something that there is not.
    """
    if not text:
        return Choice()
    found: dict[str, str] = {}
    for part in text.split("#"):
        match = _PART.match(part)
        if match is None or match[1] in found or (match[1] != "frame" and match[2] == "middle"):
            msg = "what follows '#' chooses nothing: write #series=4, #volume=0 or #frame=17."
            raise UnreadableError(msg)
        found[match[1]] = match[2]
    frame = found.get("frame")
    return Choice(
        series=int(found["series"]) if "series" in found else None,
        volume=int(found["volume"]) if "volume" in found else None,
        frame=None if frame is None else "middle" if frame == "middle" else int(frame),
    )


def place_of(frame: int | Literal["middle"], count: int) -> int:
    """Return which of ``count`` frames is meant.

    Raises:
        UnreadableError: There are not so many.
    """
    place = count // 2 if frame == "middle" else frame
    if place >= count:
        msg = f"there are {count} frames, counted from 0, and no frame {place}: mend the number."
        raise UnreadableError(msg)
    return place


def listed(words: Sequence[str], most: int = 5) -> str:
    """Return words with semicolons between, the first few of many."""
    more = len(words) - most
    return "; ".join(words[:most]) + (f"; and {more} more" if more > 0 else "")


def images_of(found: Found, choice: Choice) -> tuple[list[Any], tuple[str, ...]]:
    """Return the images of one series, and what was left out.

    Localisers, pages of a dose report, and objects about images are left out beside images: each
    is known by its SOP class or image type. Nothing else is.

    Raises:
        UnreadableError: There is no image, an image lacks its pixels, or there are several series.
    """
    images = _of_kind(found, "image")
    others = Counter(map(kinds.in_words, _of_kind(found, "segmentation", "structures", "other")))
    notes = [*found.notes, *(f"{n} x {name} left out" for name, n in sorted(others.items()))]
    if not images:
        raise _no_image(found.datasets)
    for is_beside, words in ((kinds.is_localiser, "localiser"), (kinds.is_page, "screen page")):
        beside = [image for image in images if is_beside(image)]
        if beside and len(beside) < len(images):
            images = [image for image in images if not is_beside(image)]
            notes.append(f"{len(beside)} {words}{'s' if len(beside) > 1 else ''} left out")
    if any(not kinds.has_pixels(image) for image in images):
        lacking = sum(not kinds.has_pixels(image) for image in images)
        msg = (
            f"a file of the series has no pixels ({lacking} of {len(images)} files; "
            f"{_modalities(images)}): export the series again."
        )
        raise UnreadableError(msg)
    images = _one_series(images, choice)
    images, copies = _without_copies(images)
    if copies:
        notes.append(f"{copies} files that stand twice, byte by byte, are read once")
    return images, tuple(notes)


def masks_of(found: Found) -> list[Any]:
    """Return the segmentations and structure sets at a place."""
    return _of_kind(found, *_MASK_KINDS)


def _of_kind(found: Found, *wanted: kinds.Kind) -> list[Any]:
    pairs = zip(found.datasets, found.kinds, strict=True)
    return [dataset for dataset, kind in pairs if kind in wanted]


def _no_image(datasets: Sequence[Any]) -> UnreadableError:
    first = datasets[0]
    name = kinds.in_words(first)
    many = f" (and {len(datasets) - 1} more files)" if len(datasets) > 1 else ""
    if kinds.kind_of(first) in _MASK_KINDS:
        remedy = "name it in the column mask, and the images that it is drawn on in column image"
    else:
        remedy = "name the images that it belongs to"
    return UnreadableError(f"it is no image but a DICOM {name}{many}: {remedy}.")


def _modalities(images: Sequence[Any]) -> str:
    return listed(sorted({kinds.in_words(image) for image in images}))


def _one_series(images: list[Any], choice: Choice) -> list[Any]:
    series: dict[str, list[Any]] = {}
    for image in images:
        series.setdefault(str(image.get("SeriesInstanceUID", "")), []).append(image)
    if choice.series is not None:
        known = [number for number in map(_number_of, series.values()) if number is not None]
        chosen = [s for s in series.values() if _number_of(s) == str(choice.series)]
        if len(chosen) == 1:
            _check_patient(chosen[0])
            return chosen[0]
        there = f"{len(chosen)} series" if chosen else "no series"
        msg = (
            f"there is {there} of number {choice.series} among {len(series)}"
            f"{' (' + listed(known) + ')' if known else ''}: keep one series a folder, or mend "
            "the number after '#series='."
        )
        raise UnreadableError(msg)
    if len(series) == 1:
        _check_patient(images)
        return images
    words = [
        f"{kinds.modality_of(s[0]) or kinds.in_words(s[0])} of {len(s)} files, "
        + (f"number {number}" if (number := _number_of(s)) else "without a number")
        for s in series.values()
    ]
    numbers = [_number_of(s) for s in series.values()]
    can_choose = None not in numbers and len(set(numbers)) == len(numbers)
    msg = f"the folder mixes {len(series)} series ({listed(words)}): keep one series a folder" + (
        ", or name one by its number in the cell, as in FOLDER#series=4." if can_choose else "."
    )
    raise UnreadableError(msg)


def _check_patient(images: Sequence[Any]) -> None:
    """Refuse slices of several patients, whose series a bad anonymisation has given one name.

    Raises:
        UnreadableError: There are several.
    """
    patients = {str(kinds.element(image, "PatientID") or "") for image in images} - {""}
    if len(patients) > 1:
        msg = f"its files are of {len(patients)} patients: keep one series of one patient a folder."
        raise UnreadableError(msg)


def _number_of(series: Sequence[Any]) -> str | None:
    text = str(series[0].get("SeriesNumber") or "").strip()
    return text if text.isdecimal() and len(text) <= 9 else None


def _without_copies(images: list[Any]) -> tuple[list[Any], int]:
    """Leave out what is the same object with the same pixels.

    Raises:
        UnreadableError: The same object has other pixels in another file.
    """
    kept: dict[str, Any] = {}
    for image in images:
        key = str(image.get("SOPInstanceUID") or id(image))
        first = kept.setdefault(key, image)
        if first is not image and _pixels_of(first) != _pixels_of(image):
            msg = (
                "two files say that they are the same slice, but their pixels differ: keep the "
                "right one of them."
            )
            raise UnreadableError(msg)
    return list(kept.values()), len(images) - len(kept)


def _pixels_of(image: Any) -> Any:
    element = next(
        name for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if name in image
    )
    return image[element].value
