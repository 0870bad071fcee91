"""Bytes of an array in NumPy's ``.npy`` format, read without trusting its header.

``numpy.load`` allocates what a header claims, and a hundred bytes can claim 8 GB. Here the header
must agree with what is expected *and* with the number of bytes that are really there before
anything is allocated. No pickle is ever read.
"""

import re
import struct
from functools import lru_cache
from io import BytesIO
from math import prod

import numpy as np
import torch
from numpy.lib import format as npy_format
from numpy.typing import NDArray
from torch import Tensor

from wardround.common.errors import ModelError

# The types a model may hold, with how they are written. NumPy has no bfloat16, so its bits travel
# as int16; only the array's own "dtype" says what they mean.
_WRITTEN_AS = {
    "float64": "<f8",
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<i2",
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "|i1",
    "uint8": "|u1",
    "bool": "|b1",
}
_MAGIC = b"\x93NUMPY\x01\x00"
_LENGTH_END = len(_MAGIC) + 2
_LARGEST_HEADER = 1024  # that of 32 axes has under 300 bytes
_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z][0-9])', 'fortran_order': (True|False), "
    rb"'shape': \(([0-9, ]*)\), \} *\n"
)


def type_name(tensor: Tensor) -> str:
    """Return how a schema calls a tensor's type, e.g. "float32"."""
    return str(tensor.dtype).removeprefix("torch.")


def written_as(dtype: str) -> str:
    """Return how NumPy writes a type of a model.

    Raises:
        ModelError: No model may hold it.
    """
    try:
        return _WRITTEN_AS[dtype]
    except KeyError:
        msg = f"arrays of type {dtype!r:.40} are not sent: known are {', '.join(_WRITTEN_AS)}."
        raise ModelError(msg) from None


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
