"""What a site measured, as records of a message (sums as arrays, values as numbers), checked."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from wardround.common.errors import InputError
from wardround.common.metrics.noised.decoding import checked_vector
from wardround.common.metrics.noised.encoding import NoisedSums, length_of
from wardround.common.metrics.sums import (
    MetricSums,
    SiteValues,
    empty_sums,
    metrics_of_task,
    sums_type,
)
from wardround.common.metrics.task_sums import Arrays, refuse
from wardround.common.parameters.array_records import from_array_record, to_array_record
from wardround.common.parameters.schema import ArraySpec, Schema
from wardround.common.runtime.fields import LARGEST_COUNT, LARGEST_NUMBER, FieldError, Fields, plain
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from flwr.app import ArrayRecord, MetricRecord

EXAMINATIONS = "examinations"  # a key beside the metrics' names
_VECTOR = "vector"
_PACKAGE = "package/"  # before the name of a package's metric
_UNREADABLE = (
    "the site's metrics are not numbers of this study: "
    "run the same version of wardround and the same study on both sides."
)

_LONGEST_NAMES = 100  # characters of names that nobody knows
_LARGEST_TOTAL = 2**53  # of an array of counts: its sums are exact in float64, and in int64


def to_arrays(sums: MetricSums) -> Arrays:
    """Return the sums as arrays by name; what was not measured is absent.

    Sums are float64, counts int64; a task may pack what is large into a smaller type.
    """
    return {
        "examinations": np.array([sums.examinations], dtype=np.int64),
        "loss": np.array([sums.loss], dtype=np.float64),
        **sums.measured.to_arrays(),
        **{_PACKAGE + name: array for name, array in sums.registered.items()},
    }


def from_arrays(arrays: Mapping[str, NDArray[np.generic]], study: Study) -> MetricSums:
    """Return the sums that :func:`to_arrays` wrote, after checking that they can be true.

    Checked are names, shapes, numbers that are finite, bounded and not negative, whole counts, and
    what the task's sums check: for example that the tables count the same examinations. A loss may
    be negative.

    Raises:
        InputError: The arrays are not what a site running this study could have measured.
    """
    expected = _expected(study, given=set(arrays))
    _check_names(set(arrays), set(expected), sums_type(study).OPTIONAL)
    checked = {
        name: _checked(name, np.asarray(array), expected[name]) for name, array in arrays.items()
    }
    examinations = int(checked["examinations"][0])
    if examinations > LARGEST_COUNT:
        refuse("examinations", f"is more than {LARGEST_COUNT}")
    counted = {name: checked.pop(_PACKAGE + name) for name in study.package_metrics}
    measured = sums_type(study).from_arrays(checked, examinations)
    registered = _registered(counted, examinations)
    return MetricSums(examinations, float(checked["loss"][0]), measured, registered)


def _registered(
    counted: Mapping[str, NDArray[np.generic]], examinations: int
) -> Mapping[str, NDArray[np.float64]]:
    """Return the sums of packages' metrics, of which no examination adds more than 1."""
    found = {name: array.astype(np.float64) for name, array in counted.items()}
    for name, sums in found.items():
        if (sums > examinations).any():
            refuse(_PACKAGE + name, f"is more than {examinations}, the number of examinations")
    return found


def _expected(study: Study, given: set[str]) -> Arrays:
    """Return empty arrays, with those of surfaces where any of them is given."""
    plain, whole = (to_arrays(empty_sums(study, surfaces)) for surfaces in (False, True))
    return whole if given & (set(whole) - set(plain)) else plain


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


def noised_schema(study: Study) -> Schema:
    """Return name, shape and type of the array that a noised measurement travels as."""
    return (ArraySpec(_VECTOR, (length_of(study),), "float64"),)


def noised_to_record(sums: NoisedSums) -> "ArrayRecord":
    """Return a noised measurement as the part of a message that carries it."""
    return to_array_record({_VECTOR: torch.from_numpy(sums.vector)})


def noised_from_record(record: "ArrayRecord", study: Study) -> NoisedSums:
    """Return the measurement that :func:`noised_to_record` wrote; its noise is not said.

    Raises:
        InputError: It is not what a site running this study could have sent.
        ModelError: The bytes of the array cannot be read.
    """
    tensors = from_array_record(record)
    if set(tensors) != {_VECTOR}:
        raise InputError(_UNREADABLE)
    tensor = tensors[_VECTOR]
    if tensor.dtype != torch.float64:
        raise InputError(_UNREADABLE)
    return NoisedSums(checked_vector(tensor.numpy(), study))


def values_to_record(values: SiteValues) -> "MetricRecord":
    """Return the values as the part of a message that carries them."""
    from flwr.app import MetricRecord

    return MetricRecord({EXAMINATIONS: values.examinations, **values.values})


def values_from_record(record: "MetricRecord", study: Study) -> SiteValues:
    """Return the values that :func:`values_to_record` wrote.

    Raises:
        InputError: They are not numbers that a site running this study could have measured.
    """
    known, fields = metrics_of_task(study), Fields(record, "values")
    if not set(record) <= {EXAMINATIONS, *known}:
        raise InputError(_UNREADABLE)
    try:
        values = {name: fields.number(name) for name in record if name != EXAMINATIONS}
        return SiteValues(fields.whole(EXAMINATIONS), values)
    except FieldError as error:
        msg = f"{_UNREADABLE} ({error})"
        raise InputError(msg) from None


def _check_names(given: set[str], expected: set[str], optional: frozenset[str]) -> None:
    missing = sorted(expected - given - optional)
    unknown = sorted(given - expected)
    if missing or unknown:
        held = plain(unknown, _LONGEST_NAMES)
        msg = (
            f"the metrics lack {missing} and hold {held} that the study does not name: "
            "run the same version of wardround and the same study on both sides."
        )
        raise InputError(msg)


def _checked(
    name: str, array: NDArray[np.generic], expected: NDArray[np.generic]
) -> NDArray[np.generic]:
    if array.shape != expected.shape:
        refuse(name, f"has shape {array.shape!s:.60} instead of {expected.shape}")
    if array.dtype.kind not in "iuf":
        refuse(name, f"is of type {array.dtype}")
    if not np.isfinite(array).all():
        refuse(name, "is not a finite number everywhere")
    numbers = array.astype(np.float64)
    if name != "loss" and (numbers < 0).any():
        refuse(name, f"is negative ({numbers.min():g})")
    # Bounded, so that neither a product of two nor the sums of all sites can overflow.
    if (np.abs(numbers) > LARGEST_NUMBER).any():
        refuse(name, f"holds a number above {LARGEST_NUMBER:g}")
    if expected.dtype.kind == "i":
        if (numbers != np.floor(numbers)).any() or numbers.sum() >= _LARGEST_TOTAL:
            refuse(name, "is not a count")
        return numbers.astype(np.int64)
    return numbers
