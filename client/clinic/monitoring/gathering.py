"""From images to cases: each is read and predicted once, in batches; what cannot be is told."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wardround.client.clinic.inference.inputs import Input, modality_of, read_images
from wardround.client.clinic.inference.prediction import Prediction
from wardround.client.clinic.inference.predictor import Predictor
from wardround.client.clinic.monitoring.case import Case, said_by
from wardround.client.clinic.monitoring.image_statistics import measure_images
from wardround.client.data.manifest.cells import parse_number
from wardround.client.data.manifest.covariates import listed_words
from wardround.client.data.reading.image import Image
from wardround.client.tasks.words import tidy, word_among
from wardround.common.errors import WardroundError, describe_defect, is_full_disk
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from pydicom import Dataset

_LONGEST_SCANNER = 64
_HEADER = ("Manufacturer", "ManufacturerModelName", "StationName")
Progress = Callable[[int, int], None]
KeyOf = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Gathered:
    """What became of inputs.

    Attributes:
        failed: The text of each that could not be used, and why.
    """

    cases: tuple[Case, ...]
    failed: tuple[tuple[str, str], ...]


def gather(
    predictor: Predictor, inputs: Sequence[Input], key_of: KeyOf, progress: Progress
) -> Gathered:
    """Return the cases of inputs; an image that the model was not made for is marked.

    Args:
        key_of: Makes a key of a text that may name a file.
        progress: Is told how many of how many are done.
    """
    cases: list[Case] = []
    failed: list[tuple[str, str]] = []
    waiting: list[tuple[Input, tuple[Image, ...], bool]] = []
    for number, one in enumerate(inputs, start=1):
        try:
            images = read_images(one, predictor.study)
            outside = bool(images and predictor.outside(images, modality_of(one)))
            waiting.append((one, images, outside))
        except Exception as error:
            failed.append((one.text, _why(error)))
        if len(waiting) >= predictor.batch_size or number == len(inputs):
            _predict(predictor, waiting, key_of, (cases, failed))
            waiting = []
            progress(number, len(inputs))
    return Gathered(tuple(cases), tuple(failed))


def _predict(
    predictor: Predictor,
    some: Sequence[tuple[Input, tuple[Image, ...], bool]],
    key_of: KeyOf,
    found: tuple[list[Case], list[tuple[str, str]]],
) -> None:
    if not some:
        return
    cases, failed = found
    try:
        prepared = predictor.prepare_several([(i, one.covariates) for one, i, _ in some])
        predictions = predictor.predict_prepared(prepared)
    except Exception as error:
        if len(some) == 1:
            failed.append((some[0][0].text, _why(error)))
            return
        for single in some:  # one of them is at fault; the others count all the same
            _predict(predictor, [single], key_of, found)
        return
    for (one, images, outside), prediction in zip(some, predictions, strict=True):
        cases.append(case_of_input(one, images, (prediction, outside), predictor.study, key_of))


def case_of_input(
    one: Input,
    images: Sequence[Image],
    predicted: tuple[Prediction, bool],
    study: Study,
    key_of: KeyOf,
) -> Case:
    """Return what is kept of an input.

    Args:
        predicted: What the model said, and whether the image lies outside what it was made for.
    """
    prediction, outside = predicted
    looks = _table_values(one, study) if not images else measure_images(images, study.data.channels)
    said = said_by(prediction, study.data.multi_label)
    return Case(
        key=key_of(place_of(one)),
        state=key_of(_content_of(images) or one.key),
        scanner=one.scanner or scanner_of_file(one),
        looks=looks,
        outputs=said.outputs,
        found=said.found,
        confidence=said.confidence,
        entropy=said.entropy,
        outside=outside,
    )


def case_of_series(
    series: tuple[str, str],
    images: Sequence[Image],
    predicted: tuple[Prediction, "Dataset"],
    study: Study,
    key_of: KeyOf,
) -> Case:
    """Return what is kept of a series of the archive.

    Args:
        series: Its Series Instance UID, and a digest of its objects.
        predicted: What the model said, and the header of one object.
    """
    prediction, header = predicted
    said = said_by(prediction, study.data.multi_label)
    return Case(
        key=key_of(f"series:{series[0]}"),
        state=key_of(f"objects:{series[1]}"),
        scanner=scanner_of(header),
        looks=measure_images(images, study.data.channels),
        outputs=said.outputs,
        found=said.found,
        confidence=said.confidence,
        entropy=said.entropy,
    )


def place_of(one: Input) -> str:
    """Return a text that names an input's file and item, wherever it is named from."""
    if not one.held:
        return f"{one.text}#row-{one.row}"
    first = one.held[0]
    item = "" if first.index is None else first.index
    return f"{first.path.absolute()}#{first.array or ''}#{item}"


def _content_of(images: Sequence[Image]) -> str:
    """Return a digest of pixels; "" without any.

    An image that lies twice, was exported anew or is named in another way is the same one.
    """
    if not images:
        return ""
    found = hashlib.sha256()
    for one in images:
        found.update(f"{one.array.dtype} {one.array.shape}\n".encode())
        found.update(np.ascontiguousarray(one.array).data)
    return f"pixels:{found.hexdigest()}"


def scanner_of(header: "Dataset") -> str:
    """Return maker, model and station of a DICOM header; "" where it names none."""
    words = [tidy(str(header.get(name) or "")) for name in _HEADER]
    return " ".join(dict.fromkeys(filter(None, words)))[:_LONGEST_SCANNER]


def scanner_of_file(one: Input) -> str:
    """Return the scanner that a DICOM input names; "" of any other file."""
    if modality_of(one) is None:
        return ""
    import pydicom

    path = one.held[0].path
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        try:
            return scanner_of(
                pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*_HEADER])
            )
        except Exception:  # a folder may hold other files; the reader has seen the rest
            continue
    return ""


def _table_values(one: Input, study: Study) -> dict[str, float]:
    """Return the values of a table's row; of words the place in the study's list."""
    found = {}
    for covariate, text in zip(study.data.covariates, one.covariates, strict=True):
        if covariate.values:
            words = listed_words(covariate)
            word = word_among(text, words)
            if word is not None:
                found[covariate.name] = float(words.index(word))
            continue
        try:
            value = parse_number(text)
        except ValueError:
            continue
        if value is not None:
            found[covariate.name] = value
    return found


def _why(error: Exception) -> str:
    if is_full_disk(error):
        raise error
    return str(error) if isinstance(error, WardroundError) else describe_defect(error)
