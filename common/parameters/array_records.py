"""Named tensors as Flower carries them, there and back."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wardround.common.errors import ModelError
from wardround.common.parameters.npy import decode_npy, encode_npy, to_numpy, type_name, written_as
from wardround.common.parameters.schema import ArraySpec, Parameters, Schema, compare_schemas

if TYPE_CHECKING:
    from flwr.app import ArrayRecord

NPY = "numpy.ndarray"  # Flower's name of the serialisation


def to_array_record(parameters: Mapping[str, Tensor]) -> "ArrayRecord":
    """Return the parameters as Flower sends them, with one copy of the values.

    Flower itself refuses bfloat16. Such a tensor is marked "bfloat16" and holds its bits as int16:
    our own strategies read it back, a stock Flower strategy must not be given it.
    """
    from flwr.app import Array, ArrayRecord

    record = ArrayRecord()
    for name, tensor in parameters.items():
        data = encode_npy(to_numpy(tensor))
        record[name] = Array(type_name(tensor), tuple(tensor.shape), NPY, data)
    return record


def from_array_record(record: "ArrayRecord", expected: Schema | None = None) -> Parameters:
    """Return the parameters in a record, with one copy of the values.

    Memory is allocated for bytes that have arrived, never for what a header claims. Where nothing
    is expected, each array still has to agree with itself.

    Raises:
        ModelError: An array is malformed, or is not what was expected.
    """
    if expected is not None:
        claims = (ArraySpec(n, tuple(a.shape), a.dtype) for n, a in record.items())
        compare_schemas(claims, expected)
    parameters: Parameters = {}
    for name, array in record.items():
        if array.stype != NPY:
            msg = f"{name!r:.80} is serialised as {array.stype!r:.40}: only {NPY} is read."
            raise ModelError(msg)
        values = decode_npy(array.data, written_as(array.dtype), tuple(array.shape))
        tensor = torch.from_numpy(values)
        parameters[name] = tensor.view(torch.bfloat16) if array.dtype == "bfloat16" else tensor
    return parameters


def take_array_record(record: "ArrayRecord") -> Parameters:
    """Return the parameters in a record and empty it, so that no value is held twice.

    Raises:
        ModelError: An array is malformed.
    """
    from flwr.app import ArrayRecord

    parameters: Parameters = {}
    for name in list(record):
        parameters |= from_array_record(ArrayRecord({name: record.pop(name)}))
    return parameters
