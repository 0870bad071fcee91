"""Examinations as a network sees them: from images as they were read, and texts of covariates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wardround.client.clinic.inference.inputs import require_channels
from wardround.client.data.batch import Batch
from wardround.client.data.manifest.cells import parse_number
from wardround.client.data.manifest.covariates import (
    encode_covariates,
    lacking_covariates,
    listed_words,
    missing_parts,
)
from wardround.client.data.manifest.examination import Examination, Location
from wardround.client.data.preprocessing.own_grid import OwnGrid, prepare_alike
from wardround.client.data.reading.image import Image
from wardround.client.tasks.words import word_among
from wardround.common.errors import DataError
from wardround.common.study.sections.data import Covariate, DataSection

_SOMEWHERE = Location(Path())  # of an image that was read already


@dataclass(frozen=True, slots=True)
class Prepared:
    """One examination as the network sees it.

    Attributes:
        image: ``(C, *spatial)`` float32; None for a table study.
        covariates: ``(F,)`` float32; None where the study has none.
        grid: The way back to its own voxels; None for a table study.
        missing: The optional covariates and channels that it lacks.
    """

    image: Tensor | None
    covariates: Tensor | None
    grid: OwnGrid | None
    missing: tuple[str, ...] = ()


def prepare_examinations(
    some: Sequence[tuple[Sequence[Image], Sequence[str]]], data: DataSection
) -> list[Prepared]:
    """Return examinations as the network sees them: of each its images and its covariates.

    Args:
        some: Of each the images as they were read, one a channel, and the texts of the covariates.
        data: Of the model's study.

    Raises:
        DataError: One is not what the study needs.
    """
    rows = [_encoded(images, covariates, data) for images, covariates in some]
    if data.kind == "table":
        return [Prepared(None, row, None, missing) for row, missing in rows]
    for images, _ in some:
        _check_channels(images, data)
    prepared = prepare_alike([images for images, _ in some], data)
    return [
        Prepared(image, row, grid, missing)
        for (image, grid), (row, missing) in zip(prepared, rows, strict=True)
    ]


def batch_of(some: Sequence[Prepared]) -> Batch:
    """Return examinations of one size as a batch, ``(B, C, *spatial)`` and ``(B, F)``."""
    images = [one.image for one in some if one.image is not None]
    covariates = [one.covariates for one in some if one.covariates is not None]
    return Batch(
        torch.stack(images) if images else None,
        torch.stack(covariates) if covariates else None,
        torch.zeros(len(some), dtype=torch.int64),
    )


def case_of(batch: Batch, at: int) -> Batch:
    """Return one examination of a batch, as a batch of one."""
    if len(batch) == 1:
        return batch
    images, covariates = batch.images, batch.covariates
    some = slice(at, at + 1)
    return Batch(
        None if images is None else images[some],
        None if covariates is None else covariates[some],
        batch.targets[some],
    )


def _encoded(
    images: Sequence[Image], covariates: Sequence[str], data: DataSection
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Return the columns ``(F,)`` of an examination, and which optional parts it lacks."""
    known = data.covariates
    if len(covariates) != len(known):
        names = ", ".join(covariate.name for covariate in known)
        msg = f"the model needs the values of {names}: give them in a manifest."
        raise DataError(msg)
    texts = tuple(map(_as_listed, known, covariates))
    if lacking := lacking_covariates(texts, data):
        msg = (
            f"it has no value of {', '.join(lacking)} that the model knows, and the model was "
            "not trained to do without: fill it in."
        )
        raise DataError(msg)
    scales = [(covariate.mean, covariate.scale) for covariate in known]
    held = tuple(None if image.is_absent else _SOMEWHERE for image in images)
    only = Examination(0, "", held, covariates=texts)
    encoded = encode_covariates([only], data, scales)
    return None if encoded is None else encoded[0], missing_parts(only, data)


def _as_listed(covariate: Covariate, text: str) -> str:
    """Return the word of the study that a text stands for, as a manifest of a site is read.

    Raises:
        DataError: A number is none.
    """
    if covariate.values:
        return word_among(text, listed_words(covariate)) or text
    try:
        parse_number(text)
    except ValueError as error:
        msg = f"its value of {covariate.name} is {error}: write one, with a decimal point."
        raise DataError(msg) from None
    return text


def _check_channels(images: Sequence[Image], data: DataSection) -> None:
    """Check that there is an image a channel, but for those that an examination may lack.

    Raises:
        DataError: There is not.
    """
    if len(images) != len(data.channels):
        msg = (
            f"{len(images)} images were given for the channels "
            f"{', '.join(data.channels)}: give one a channel."
        )
        raise DataError(msg)
    require_channels([not image.is_absent for image in images], data)
