"""Metric sums as named arrays that travel in a message, and the check of what arrives."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from wardround.common.errors import InputError
from wardround.common.metrics.sums import (
    ClassificationSums,
    Counts,
    MetricSums,
    SegmentationSums,
    Sums,
    SurfaceSums,
    empty_sums,
)
from wardround.common.parameters.array_records import from_array_record, to_array_record
from wardround.common.parameters.schema import ArraySpec, Schema
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from flwr.app import ArrayRecord

Arrays = dict[str, NDArray[np.generic]]
Part = ClassificationSums | SegmentationSums | SurfaceSums
_OPTIONAL = frozenset({"ordered_pairs"})
_HISTOGRAMS = frozenset({"positives", "negatives"})


def to_arrays(sums: MetricSums) -> Arrays:
    """Return the sums as arrays by name; what was not measured is absent.

    Sums are float64, counts int64, and the histograms, most of the bytes, int32.
    """
    arrays: Arrays = {
        "examinations": np.array([sums.examinations], dtype=np.int64),
        "loss": np.array([sums.loss], dtype=np.float64),
    }
    for part in (sums.classification, sums.segmentation):
        if part is not None:
            arrays.update(_named(part))
    return arrays


def from_arrays(arrays: Mapping[str, NDArray[np.generic]], study: Study) -> MetricSums:
    """Return the sums that :func:`to_arrays` wrote, after checking that they can be true.

    Checked are names, shapes, numbers that are finite and not negative, whole counts, and that the
    tables count the same examinations. A loss may be negative.

    Raises:
        InputError: The arrays are not what a site running this study could have measured.
    """
    expected = to_arrays(empty_sums(study, surfaces="hd95" in arrays))
    _check_names(set(arrays), set(expected))
    checked = {
        name: _checked(name, np.asarray(array), expected[name]) for name, array in arrays.items()
    }
    examinations = int(checked["examinations"][0])
    loss = float(checked["loss"][0])
    if study.study.task == "classification":
        counted = _classification(checked)
        _check_classification(counted, examinations, study.data.multi_label)
        return MetricSums(examinations, loss, classification=counted)
    measured = _segmentation(checked)
    _check_segmentation(measured, examinations)
    return MetricSums(examinations, loss, segmentation=measured)


def array_schema(study: Study, surfaces: bool) -> Schema:
    """Return name, shape and type of every array that a study's sums travel as."""
    arrays = to_arrays(empty_sums(study, surfaces))
    return tuple(ArraySpec(name, array.shape, str(array.dtype)) for name, array in arrays.items())


def sums_to_record(sums: MetricSums) -> "ArrayRecord":
    """Return the sums as the part of a message that carries them."""
    arrays = to_arrays(sums)
    return to_array_record({name: torch.from_numpy(array) for name, array in arrays.items()})


def sums_from_record(record: "ArrayRecord", study: Study) -> MetricSums:
    """Return the sums that :func:`sums_to_record` wrote, checked as in :func:`from_arrays`.

    Raises:
        InputError: They are not what a site running this study could have measured.
        ModelError: The bytes of an array cannot be read.
    """
    tensors = from_array_record(record)
    return from_arrays({name: tensor.numpy() for name, tensor in tensors.items()}, study)


def _named(part: Part) -> Iterator[tuple[str, NDArray[np.generic]]]:
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, SurfaceSums):
            yield from _named(value)
        elif value is not None:
            yield field.name, value.astype(np.int32) if field.name in _HISTOGRAMS else value


def _check_names(given: set[str], expected: set[str]) -> None:
    missing = sorted(expected - given - _OPTIONAL)
    unknown = sorted(given - expected)
    if missing or unknown:
        msg = (
            f"the metrics lack {missing} and hold {unknown} that the study does not name: "
            "run the same version of wardround and the same study on both sides."
        )
        raise InputError(msg)


def _checked(
    name: str, array: NDArray[np.generic], expected: NDArray[np.generic]
) -> NDArray[np.generic]:
    if array.shape != expected.shape:
        _refuse(name, f"has shape {array.shape} instead of {expected.shape}")
    if array.dtype.kind not in "iuf":
        _refuse(name, f"is of type {array.dtype}")
    if not np.isfinite(array).all():
        _refuse(name, "is not a finite number everywhere")
    numbers = array.astype(np.float64)
    if name != "loss" and (numbers < 0).any():
        _refuse(name, f"is negative ({numbers.min():g})")
    if expected.dtype.kind == "i":
        if (numbers != np.floor(numbers)).any() or (numbers >= 2**53).any():
            _refuse(name, "is not a count")
        return numbers.astype(np.int64)
    return numbers


def _classification(arrays: Mapping[str, NDArray[np.generic]]) -> ClassificationSums:
    pairs = _sums(arrays, "ordered_pairs") if "ordered_pairs" in arrays else None
    return ClassificationSums(
        _counts(arrays, "confusion"),
        _counts(arrays, "positives"),
        _counts(arrays, "negatives"),
        pairs,
    )


def _segmentation(arrays: Mapping[str, NDArray[np.generic]]) -> SegmentationSums:
    surface = None
    if "hd95" in arrays:
        surface = SurfaceSums(
            _sums(arrays, "hd95"),
            _counts(arrays, "hd95_cases"),
            _sums(arrays, "surface_dice"),
            _counts(arrays, "surface_dice_cases"),
        )
    return SegmentationSums(
        _sums(arrays, "dice"),
        _counts(arrays, "dice_cases"),
        _counts(arrays, "true_positives"),
        _counts(arrays, "false_positives"),
        _counts(arrays, "false_negatives"),
        _sums(arrays, "case_moments"),
        surface,
    )


def _counts(arrays: Mapping[str, NDArray[np.generic]], name: str) -> Counts:
    return arrays[name].astype(np.int64, copy=False)


def _sums(arrays: Mapping[str, NDArray[np.generic]], name: str) -> Sums:
    return arrays[name].astype(np.float64, copy=False)


def _check_classification(sums: ClassificationSums, examinations: int, multi_label: bool) -> None:
    per_table = sums.confusion.sum(axis=(-2, -1))
    if (per_table != examinations).any():
        _refuse("confusion", f"does not count the {examinations} examinations")
    truth = sums.confusion[:, 1].sum(axis=1) if multi_label else sums.confusion.sum(axis=1)
    positives, negatives = sums.positives.sum(axis=1), sums.negatives.sum(axis=1)
    if (positives != truth).any() or (negatives != examinations - truth).any():
        _refuse("positives, negatives", "do not count the examinations that confusion counts")
    pairs = sums.ordered_pairs
    if pairs is not None and (pairs > positives.astype(float) * negatives).any():
        _refuse("ordered_pairs", "is more than there are pairs")


def _check_segmentation(sums: SegmentationSums, examinations: int) -> None:
    means = [("dice", sums.dice, sums.dice_cases)]
    cases = [sums.dice_cases]
    if sums.surface is not None:
        surface = sums.surface
        means.append(("surface_dice", surface.surface_dice, surface.surface_dice_cases))
        cases += [surface.surface_dice_cases, surface.hd95_cases]
        if (surface.hd95[surface.hd95_cases == 0] > 0).any():
            _refuse("hd95", "is a sum over no case")
    if any((counts > examinations).any() for counts in cases):
        _refuse("a number of cases", f"is more than the {examinations} examinations")
    number, first, second = sums.case_moments
    if number > examinations or first > number * (1 + 1e-9) or second > first * (1 + 1e-9):
        _refuse("case_moments", f"cannot be those of {examinations} examinations")
    for name, total, counts in means:
        if (total > counts * (1 + 1e-9)).any():
            _refuse(name, "has a mean above 1")


def _refuse(name: str, fact: str) -> None:
    msg = (
        f"the metric array {name} {fact}: "
        "run the same version of wardround and the same study on both sides."
    )
    raise InputError(msg)
