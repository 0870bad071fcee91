"""Predictions from a notebook: a model and images as they are, files, arrays or tensors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from os import PathLike, fspath
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

import wardround
from wardround.client.clinic.inference.ensemble import Ensemble
from wardround.client.clinic.inference.inputs import find_inputs, modality_of, read_images
from wardround.client.clinic.inference.prediction import (
    Classified,
    Detected,
    Estimated,
    Prediction,
    Segmented,
)
from wardround.client.clinic.inference.predictor import Predictor, load_predictor, refusal
from wardround.client.clinic.inference.views import View
from wardround.client.data.manifest.cells import parse_number
from wardround.client.data.reading.image import Image, fill_absent
from wardround.client.data.reading.readers import check_finite, sort_planes
from wardround.common.errors import DataError, InputError, ModelError, WardroundError
from wardround.common.models.contract import Contract, study_content
from wardround.common.models.model_folder import ModelFolder, is_model_folder, open_model_folder
from wardround.common.parameters.arithmetic import digest as parameters_digest
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.study import Study
from wardround.simulations.notebook.data.columns import as_text, is_absent
from wardround.simulations.notebook.data.table import columns_of_table
from wardround.simulations.notebook.models import LoadedModel, load_model
from wardround.simulations.notebook.result import SimulationResult
from wardround.simulations.notebook.tables import Table, table_of

_SHOWN = 10


class Predictions(Sequence[Prediction]):
    """What a model said of some examinations, in the order in which they were given."""

    def __init__(self, found: Sequence[Prediction], names: Sequence[str]) -> None:
        self._found = tuple(found)
        self.names = tuple(names)

    @overload
    def __getitem__(self, place: int) -> Prediction: ...
    @overload
    def __getitem__(self, place: slice) -> "Predictions": ...
    def __getitem__(self, place: int | slice) -> "Prediction | Predictions":
        if isinstance(place, slice):
            return Predictions(self._found[place], self.names[place])
        return self._found[place]

    def __len__(self) -> int:
        return len(self._found)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """``(N, K)`` of a classification, in the order of its classes.

        Raises:
            ModelError: It is another task: a segmentation has labels, a detection boxes.
        """
        rows = [one.probabilities for one in self._found if isinstance(one, Classified)]
        if len(rows) < len(self._found):
            msg = (
                "only a classification has probabilities of whole images: see labels of a "
                "segmentation, and boxes of each prediction of a detection."
            )
            raise ModelError(msg)
        return np.array(rows, dtype=np.float64)

    @property
    def labels(self) -> list[NDArray[Any]]:
        """Of a segmentation the class at every voxel of each image as it was given.

        Raises:
            ModelError: It is another task, without an answer at every voxel.
        """
        found = [one.labels for one in self._found if isinstance(one, Segmented)]
        if len(found) < len(self._found):
            msg = (
                "only a segmentation has labels of voxels: see probabilities of a classification, "
                "and boxes of each prediction of a detection."
            )
            raise ModelError(msg)
        return found

    @property
    def table(self) -> Table:
        """A row an examination: what was found and each class's probability, or its voxels."""
        rows = [_row(name, one) for name, one in zip(self.names, self._found, strict=True)]
        return table_of(rows, list(rows[0]) if rows else ["examination"])

    def __repr__(self) -> str:
        return f"<{len(self)} predictions>"

    def _repr_html_(self) -> str:
        rows = [_row(name, one) for name, one in zip(self.names, self._found, strict=True)]
        head = "".join(f"<th>{escape(name)}</th>" for name in (rows[0] if rows else ()))
        lines = "".join(
            "<tr>" + "".join(f"<td>{escape(_short(cell))}</td>" for cell in row.values()) + "</tr>"
            for row in rows[:_SHOWN]
        )
        more = f"<p>and {len(rows) - _SHOWN} more</p>" if len(rows) > _SHOWN else ""
        return f"<table><tr>{head}</tr>{lines}</table>{more}"


def predict(
    model: "LoadedModel | SimulationResult | Predictor | str | PathLike[str]",
    images: Any = None,
    *,
    covariates: Any = None,
    device: str = "auto",
    check: bool = True,
) -> Predictions:
    """Return what a model says of examinations; images are prepared as they were for its training.

    Args:
        model: A run or its folder (its federated model), a loaded model, a model folder, or a
            predictor.
        images: One image or several: arrays or tensors of the study's shape, ``(H, W)``,
            ``(H, W, 3)``, ``(D, H, W)`` or with an axis of N before, in the values that the
            training images had, NaN all over for an optional channel that is missing; paths of
            images, folders or manifests; or a list of these.
        covariates: Clinical values, a row an examination: a data frame or columns by name. Of a
            study of tables they may stand in the place of the images.
        device: "auto", "cpu", "cuda" or "cuda:1"; a loaded model stays on its own.
        check: Whether an image that the model was not made for is refused.

    Raises:
        DataError: An examination is not what the model needs; says which and why.
        InputError: A file is not there, or the model cannot predict.
        ModelError: There is no such model, or it is only the part that sites share.
    """
    predictor = _predictor(model, device)
    study = predictor.study
    if study.data.kind == "table" and covariates is None:
        images, covariates = None, images
    examinations = list(_examinations(images, covariates, study))
    if check:
        for at, one in enumerate(examinations):
            outside = predictor.outside(one.images, one.modality) if one.images else ()
            if outside:
                msg = f"image {at}: {refusal(outside)}"
                raise DataError(msg)
    found: list[Prediction] = []
    for start in range(0, len(examinations), predictor.batch_size):
        batch = examinations[start : start + predictor.batch_size]
        try:
            prepared = predictor.prepare_several([(one.images, one.covariates) for one in batch])
            found += predictor.predict_prepared(prepared)
        except WardroundError as error:
            last = start + len(batch) - 1
            msg = f"examination {start}{f' to {last}' if last > start else ''}: {error}"
            raise type(error)(msg) from None
    return Predictions(found, [one.name for one in examinations])


@dataclass(frozen=True, slots=True)
class _Examination:
    name: str
    images: tuple[Image, ...]
    covariates: tuple[str, ...]
    modality: str | None = None


def _predictor(model: object, device: str) -> Predictor:
    if isinstance(model, Predictor):
        return model
    if isinstance(model, SimulationResult):
        model = load_model(model.folder, model.study, device=device)
    elif isinstance(model, str | PathLike):
        if is_model_folder(Path(model)):
            return load_predictor(model, device)
        model = load_model(model, device=device)
    if not isinstance(model, LoadedModel):
        msg = (
            f"{type(model).__name__} is no model: give a run, its folder, a model folder, or what "
            "wardround.load_model returns."
        )
        raise InputError(msg)
    known = _known(model)
    place = next(model.network.parameters()).device
    return Predictor(Ensemble((known,), (model.network.eval(),), place, (View(),)))


def _known(model: LoadedModel) -> ModelFolder:
    """Return what is known of a model beside its weights."""
    if model.folder is not None:
        return open_model_folder(model.folder)
    contract = Contract(
        wardround=wardround.__version__,
        name=model.name,
        round=model.round,
        study=study_content(model.study),
        study_digest=model.study.digest,
        parameters=parameters_digest(read_parameters(model.network)),
        seen_note="it was loaded from a file of weights alone",
    )
    return ModelFolder(Path(), contract, model.study, (), "", None)


def _examinations(images: Any, covariates: Any, study: Study) -> Iterator[_Examination]:
    rows = None if covariates is None else list(_covariates(covariates, study))
    if images is None:
        if study.data.kind != "table" or rows is None:
            needed = "clinical values" if study.data.kind == "table" else "images"
            msg = f"the model predicts from {needed}: give some."
            raise InputError(msg)
        for at, row in enumerate(rows):
            yield _Examination(f"row {at}", (), row)
        return
    some = list(_images(images, study))
    if not some:
        msg = "there is no image to predict: give one."
        raise InputError(msg)
    if rows is not None and len(rows) != len(some):
        msg = f"there are {len(some)} images and {len(rows)} rows of covariates: give one for each."
        raise DataError(msg)
    for at, one in enumerate(some):
        texts = one.covariates if rows is None else rows[at]
        yield _Examination(one.name, one.images, texts, one.modality)


def _images(images: Any, study: Study) -> Iterator[_Examination]:
    if isinstance(images, str | PathLike):
        for at, one in enumerate(find_inputs([fspath(images)], study)):
            try:
                read = read_images(one, study)
            except WardroundError as error:
                msg = f"file {at} of those named: {error}"
                raise type(error)(msg) from None
            yield _Examination(one.text, read, one.covariates, modality_of(one))
        return
    if isinstance(images, list | tuple) and not _is_numbers(images):
        for at, given in enumerate(images):
            found = list(_images(given, study))
            for image in found:
                is_array = not isinstance(given, str | PathLike)
                name = f"image {at}" if is_array and len(found) == 1 else image.name
                yield replace(image, name=name)
        return
    for at, item in enumerate(_items(_array(images), study)):
        yield _Examination(f"image {at}", item, ())


def _is_numbers(values: Sequence[Any]) -> bool:
    """Whether a list is an image itself, row by row."""
    first: Any = values
    while isinstance(first, list | tuple) and first:
        first = first[0]
    return isinstance(first, int | float)


def _array(images: Any) -> NDArray[Any]:
    if isinstance(images, Mapping):
        msg = "images are given by name: give an array, or a list in the study's order."
        raise DataError(msg)
    if isinstance(images, torch.Tensor):
        images = images.detach().cpu().numpy()
    try:
        array: NDArray[Any] = np.asarray(images)
    except ValueError:
        array = np.asarray(None)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    if array.dtype.kind not in "uif":
        msg = f"{type(images).__name__} is no image: give an array of numbers, a tensor or a path."
        raise DataError(msg)
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def _items(array: NDArray[Any], study: Study) -> Iterator[tuple[Image, ...]]:
    """Yield the channels of each examination that an array holds."""
    data = study.data
    channels, planes = len(data.channels), 3 if data.colour else 1
    single = data.dimensions + (channels > 1) + (planes > 1)
    is_grey = channels == planes == 1
    if is_grey and array.ndim == single + 1 and 1 in (array.shape[0], array.shape[-1]):
        # One examination with an axis of one plane; a batch of one reads the same.
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if is_grey and array.ndim == data.dimensions + 2 and 1 in (array.shape[1], array.shape[-1]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    if array.ndim == single:
        array = array[np.newaxis]
    spatial = "H, W" if data.dimensions == 2 else "D, H, W"
    if array.ndim != single + 1 or (channels > 1 and array.shape[1] != channels):
        wanted = f"({'C, ' if channels > 1 else ''}{spatial}{', 3' if planes > 1 else ''})"
        shape = "x".join(map(str, array.shape))
        msg = f"the images have the shape {shape}: give {wanted}, or N of these."
        raise DataError(msg)
    for one in array:
        parts = list(one) if channels > 1 else [one]
        lacks = [channels > 1 and _is_nothing(part) for part in parts]
        yield fill_absent(
            [
                None if lacking else _image(part, study)
                for part, lacking in zip(parts, lacks, strict=True)
            ]
        )


def _is_nothing(part: NDArray[Any]) -> bool:
    """Return whether an array says that there is no image: not one of its values is a number."""
    return part.dtype.kind == "f" and bool(np.isnan(part).all())


def _image(part: NDArray[Any], study: Study) -> Image:
    data = study.data
    if data.colour and part.ndim == 3 and part.shape[0] in (3, 4) and part.shape[-1] not in (3, 4):
        part = np.moveaxis(part, 0, -1)
    planes = sort_planes(part[np.newaxis], data.dimensions, data.colour)[0]
    check_finite(planes)
    return Image(planes, eight_bit=part.dtype == np.uint8)


def _covariates(table: Any, study: Study) -> Iterator[tuple[str, ...]]:
    known = study.data.covariates
    columns = columns_of_table(table)
    optional = study.data.optional_covariates
    if lacking := [n for one in known if (n := one.name) not in columns and n not in optional]:
        msg = f"the table lacks the column {', '.join(lacking)}: add it."
        raise DataError(msg)
    for at in range(len(next(iter(columns.values())))):
        texts = []
        for one in known:
            value = columns[one.name][at] if one.name in columns else None
            text = "" if is_absent(value) else as_text(value)
            if isinstance(value, bool | np.bool_):
                text = str(int(value))
            if not one.values:
                try:
                    parse_number(text)
                except ValueError:
                    msg = f"row {at} (from 0): {one.name} is no number: give one, or leave it out."
                    raise DataError(msg) from None
            texts.append(text)
        yield tuple(texts)


def _row(name: str, one: Prediction) -> dict[str, Any]:
    if isinstance(one, Classified):
        probabilities = dict(zip(one.classes, one.probabilities, strict=True))
        return {"examination": name, "found": ", ".join(one.found) or "none", **probabilities}
    if isinstance(one, Estimated):
        return {"examination": name, **dict(zip(one.names, one.values, strict=True))}
    if isinstance(one, Detected):
        boxes = dict(zip(one.classes, one.counts, strict=True))
        return {"examination": name, **{f"boxes of {label}": n for label, n in boxes.items()}}
    voxels = dict(zip(one.classes[1:], one.voxels[1:], strict=True))
    return {"examination": name, **{f"voxels of {label}": n for label, n in voxels.items()}}


def _short(cell: Any) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)
