"""Named tensors keep names, types and values on the way through Flower."""

import struct
from io import BytesIO

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wardround.common.errors import ModelError
from wardround.common.parameters.array_records import (
    decode_npy,
    encode_npy,
    from_array_record,
    to_array_record,
)
from wardround.common.parameters.schema import schema

TYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return schema(a) == schema(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3), (2, 3, 4)], ids=str)
def test_every_type_and_shape_survives_the_journey(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    tensor = (torch.randn(shape) * 50).to(dtype)
    sent = to_array_record({"x": tensor})
    arrived = from_array_record(sent, schema({"x": tensor}))
    assert arrived["x"].dtype == dtype
    assert torch.equal(arrived["x"], tensor)
    arrived["x"].zero_()  # it is writable, and does not write into the message
    assert torch.equal(from_array_record(sent)["x"], tensor)


def test_the_bytes_are_those_that_numpy_and_flower_write() -> None:
    parameters = {"a": torch.randn(3, 4), "n": torch.tensor(5), "t": torch.randn(4, 3).T}
    ours, theirs = to_array_record(parameters), ArrayRecord(parameters)
    for name in ("a", "n"):
        assert ours[name] == theirs[name]
    for name, tensor in parameters.items():
        assert np.array_equal(ours[name].numpy(), tensor.numpy())
    assert same(from_array_record(ArrayRecord({"a": theirs["a"]})), {"a": parameters["a"]})


def array(data: bytes, dtype: str = "float32", shape: tuple[int, ...] = (2,)) -> ArrayRecord:
    return ArrayRecord({"x": Array(dtype, shape, "numpy.ndarray", data)})


def saved(values: object, **options: bool) -> bytes:
    stream = BytesIO()
    np.save(stream, values, **options)  # type: ignore[call-overload]
    return stream.getvalue()


GOOD = saved(np.ones(2, np.float32))
HUGE = (1 << 40,)


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        (array(b""), "not in .npy format"),
        (array(b"\x80\x04pickle"), "not in .npy format"),
        (array(GOOD[:-1]), "7 bytes of data where its shape needs 8"),
        (array(GOOD + b"\0"), "9 bytes of data"),
        (array(GOOD[:8] + struct.pack("<H", 60_000) + GOOD[10:]), "claims a header of 60000"),
        (array(GOOD[:40]), "claims a header"),
        (array(GOOD.replace(b"<f4", b"<i4")), "header says <i4"),
        (array(GOOD.replace(b"(2,)", b"(9,)")), "header says"),
        (array(GOOD.replace(b"{", b"[")), "header cannot be read"),
        (array(GOOD.replace(b"(2,)", b"(,,)")), "header says"),
        (array(GOOD.replace(b"<f4", b"|O8")), "cannot be read"),
        (array(saved(np.array([{}, 1]), allow_pickle=True)), "cannot be read"),
        (array(saved(np.asfortranarray(np.ones((2, 3), np.float32))), shape=(2, 3)), "by column"),
        (array(GOOD, shape=(3,)), "header says"),
        (array(GOOD, shape=(-2,)), "header says"),
        (array(GOOD, dtype="object"), "arrays of type 'object' are not sent"),
        (array(GOOD, dtype="complex64"), "are not sent"),
        (ArrayRecord({"x": Array("float32", (2,), "pickle", GOOD)}), "only numpy.ndarray is read"),
    ],
)
def test_a_malformed_array_is_refused(record: ArrayRecord, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        from_array_record(record)


def test_an_array_that_claims_terabytes_is_refused_before_anything_is_allocated() -> None:
    stream = BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": HUGE}
    np.lib.format.write_array_header_1_0(stream, header)
    with pytest.raises(ModelError, match="where its shape needs 4398046511104"):
        from_array_record(array(stream.getvalue(), shape=HUGE))


def test_what_was_not_expected_is_refused_before_it_is_read() -> None:
    expected = schema({"x": torch.zeros(3)})
    with pytest.raises(ModelError, match=r"'x' is float32 \[2\], not float32 \[3\]"):
        from_array_record(array(b"not an array"), expected)
    with pytest.raises(ModelError, match="missing: 'x'"):
        from_array_record(ArrayRecord(), expected)


@given(data=st.binary(max_size=200), tail=st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_an_array_or_a_refusal(data: bytes, tail: bool) -> None:
    header = struct.pack("<H", len(data)) if tail else b""
    try:
        decode_npy(b"\x93NUMPY\x01\x00" + header + data, "<f4", (2,))
    except ModelError:
        return
    pytest.fail("random bytes were read as an array")


def test_an_array_in_rows_of_another_layout_is_sent_in_rows() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
    assert np.array_equal(decode_npy(encode_npy(values), "<f4", (3, 2)), values)
