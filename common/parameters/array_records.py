"""Named tensors as Flower carries them, there and back: bytes in NumPy's ``.npy`` format.

They are read without trusting their header. ``numpy.load`` allocates what a header claims, and a
hundred bytes can claim 8 GB. Here the header must agree with what is expected *and* with the number
of bytes that are really there before anything is allocated. No pickle is ever read.
"""

import re
import struct
from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from torch import Tensor

from wardround.common.errors import ModelError
from wardround.common.parameters.schema import (
    ArraySpec,
    Parameters,
    Schema,
    compare_schemas,
    type_name,
    written_as,
)

if TYPE_CHECKING:
    from flwr.app import ArrayRecord

NPY = "numpy.ndarray"  # Flower's name of the serialisation
_MAGIC = b"\x93NUMPY\x01\x00"
_LENGTH_END = len(_MAGIC) + 2
_LARGEST_HEADER = 1024  # that of 32 axes has under 300 bytes
_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z][0-9])', 'fortran_order': (True|False), "
    rb"'shape': \(([0-9, ]*)\), \} *\n"
)


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


def to_numpy(tensor: Tensor) -> NDArray[np.generic]:
    """Return a tensor's values on the CPU, in rows; bfloat16 as its bits.

    Raises:
        ModelError: No model may hold its type.
    """
    written_as(type_name(tensor))
    plain = tensor.detach().cpu().contiguous()
    if plain.dtype == torch.bfloat16:
        plain = plain.view(torch.int16)
    array: NDArray[np.generic] = plain.numpy()
    return array


def encode_npy(array: NDArray[np.generic]) -> bytes:
    """Return the bytes that ``numpy.save`` would write, with a single copy of the data.

    Args:
        array: Of any shape; it need not be contiguous.
    """
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return b"".join((_header(array.dtype.str, array.shape), flat.data))


def decode_npy(data: bytes, dtype: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Return the array in the bytes, a writable copy.

    Args:
        data: What :func:`encode_npy` or ``numpy.save`` wrote.
        dtype: The expected type, e.g. "<f4".
        shape: The expected shape.

    Raises:
        ModelError: The bytes are not such an array.
    """
    start = _data_start(data)
    found = _read_header(data[:start])
    if found != (dtype, shape) or any(length < 0 for length in shape):
        msg = (
            f"an array's header says {found[0]} {list(found[1])!s:.80}, "
            f"not {dtype} {list(shape)!s:.80}: "
            "the sender must run the same version of wardround."
        )
        raise ModelError(msg)
    needed = prod(shape) * np.dtype(dtype).itemsize
    if len(data) - start != needed:
        msg = (
            f"an array has {len(data) - start} bytes of data where its shape needs {needed}: "
            "send it again."
        )
        raise ModelError(msg)
    return np.frombuffer(data, dtype, offset=start).reshape(shape).copy()


def values_of(data: bytes, dtype: str, shape: tuple[int, ...]) -> NDArray[np.generic] | None:
    """Return a view of the values, where the bytes are exactly what :func:`encode_npy` writes.

    Nothing else fits into such bytes: no second header, no blanks of another length, nothing after
    the last value. None otherwise.

    Args:
        data: The bytes of a message.
        dtype: The expected type, e.g. "<f4".
        shape: The expected shape.

    Returns:
        ``(values,)``, flat.
    """
    header = _header(dtype, shape)
    needed = len(header) + prod(shape) * np.dtype(dtype).itemsize
    if len(data) != needed or not data.startswith(header):
        return None
    return np.frombuffer(data, dtype, offset=len(header))


@lru_cache(maxsize=1024)
def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    stream = BytesIO()
    npy_format.write_array_header_1_0(
        stream, {"descr": dtype, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def _data_start(data: bytes) -> int:
    if len(data) < _LENGTH_END or not data.startswith(_MAGIC):
        msg = (
            "an array is not in .npy format 1.0: the sender must run the same version of wardround."
        )
        raise ModelError(msg)
    (length,) = struct.unpack_from("<H", data, len(_MAGIC))
    start = _LENGTH_END + int(length)
    if length > _LARGEST_HEADER or start > len(data):
        msg = f"an array claims a header of {length} bytes: at most {_LARGEST_HEADER} are read."
        raise ModelError(msg)
    return start


def _read_header(header: bytes) -> tuple[str, tuple[int, ...]]:
    # NumPy hands this text to Python's own parser; a pattern is all that it takes.
    match = _HEADER.fullmatch(header, _LENGTH_END)
    if match is None:
        msg = "an array's header cannot be read: the sender must run the same version of wardround."
        raise ModelError(msg)
    dtype, by_column, lengths = (part.decode() for part in match.groups())
    shape = tuple(int(length) for length in lengths.split(",") if length.strip())
    if by_column == "True" and len(shape) > 1:
        msg = "an array is stored column by column: send it row by row."
        raise ModelError(msg)
    return dtype, shape
