"""Named tensors keep names, types and values on every way they go."""

import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from wardround.common.errors import ModelError
from wardround.common.parameters.npy import decode_npy, encode_npy
from wardround.common.parameters.parameters import (
    ArraySpec,
    check_schema,
    difference,
    digest,
    from_array_record,
    load_model,
    parameter_count,
    read_parameters,
    save_model,
    schema,
    select,
    to_array_record,
    write_parameters,
)

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


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return schema(a) == schema(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_reading_gives_copies_with_the_integer_counters() -> None:
    net = network()
    parameters = read_parameters(net)
    assert list(parameters) == list(net.state_dict())
    assert parameters["1.num_batches_tracked"].dtype == torch.int64
    assert not any(tensor.requires_grad for tensor in parameters.values())
    kept = parameters["3.weight"].clone()
    with torch.no_grad():
        net[3].weight += 1  # type: ignore[index,operator]
    assert torch.equal(parameters["3.weight"], kept)


def test_what_is_written_is_what_is_read() -> None:
    source, target = network(1), network(2)
    source(torch.randn(4, 1, 4, 4))  # moves the counter and the running means
    parameters = read_parameters(source)
    write_parameters(target, parameters)
    assert same(read_parameters(target), parameters)
    assert int(target.state_dict()["1.num_batches_tracked"]) == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda p: p.pop("3.bias"), "missing: '3.bias'"),
        (lambda p: p.update(extra=torch.ones(1)), "unknown: 'extra'"),
        (
            lambda p: p.update({"3.bias": torch.ones(4)}),
            r"'3.bias' is float32 \[4\], not float32 \[3\]",
        ),
        (
            lambda p: p.update({"3.bias": torch.ones(3, dtype=torch.float64)}),
            "float64 .* not float32",
        ),
        (
            lambda p: p.update({"1.num_batches_tracked": torch.tensor(1.0)}),
            "'1.num_batches_tracked' is float32",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_refused_and_nothing_is_written(
    change: object, complaint: str
) -> None:
    target = network(1)
    before = read_parameters(target)
    parameters = read_parameters(network(2))
    change(parameters)  # type: ignore[operator]
    with pytest.raises(ModelError, match=complaint):
        write_parameters(target, parameters)
    assert same(read_parameters(target), before)


def test_the_order_of_names_does_not_matter_to_a_schema_check() -> None:
    parameters = read_parameters(network())
    check_schema(dict(reversed(parameters.items())), schema(network()))


def test_a_schema_counts_bytes() -> None:
    assert ArraySpec("a", (3, 5), "float32").byte_count == 60
    assert ArraySpec("a", (), "int64").byte_count == 8
    assert ArraySpec("a", (0, 5), "bfloat16").byte_count == 0


def test_difference_is_the_largest_absolute_one() -> None:
    a = {"x": torch.tensor([1.0, 2.0]), "n": torch.tensor(3), "none": torch.zeros(0)}
    b = {"n": torch.tensor(7), "x": torch.tensor([1.5, -0.5]), "none": torch.zeros(0)}
    assert difference(a, b) == 4
    assert difference(a, a) == 0
    assert difference(b, {**b, "n": torch.tensor(7)}) == 0
    assert difference({"x": torch.tensor([1.0, 2.0])}, {"x": torch.tensor([1.5, -0.5])}) == 2.5
    assert np.isnan(difference({"x": torch.tensor([0.0, np.nan])}, {"x": torch.tensor([9.0, 0])}))


def test_difference_of_unlike_models_is_refused() -> None:
    with pytest.raises(ModelError):
        difference({"x": torch.zeros(2)}, {"x": torch.zeros(3)})


def test_only_what_is_learnt_is_counted() -> None:
    assert parameter_count(network()) == (2 * 9 + 2) + (2 + 2) + (8 * 3 + 3)


def test_a_digest_sees_every_name_shape_type_and_bit() -> None:
    parameters = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.nextafter(torch.ones(1), torch.zeros(1))},
        {"a": -torch.zeros(2, 3), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3)},
    ]
    digests = {digest(p) for p in [parameters, *others]}
    assert len(digests) == 7
    assert digest(dict(reversed(parameters.items()))) == digest(parameters)
    assert len(digest(parameters)) == 64


def test_a_digest_is_that_of_the_values_whatever_their_layout() -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    assert digest({"a": tensor.T.contiguous().T}) == digest({"a": tensor})


def test_names_are_selected_by_pattern_in_their_own_order() -> None:
    names = ("encoder.0.weight", "encoder.norm.weight", "head.weight", "head.bias")
    assert select(names, ["head.*"]) == ("head.weight", "head.bias")
    assert select(names, ["head.*", "*.norm.*"]) == names[1:]
    assert select(names, []) == ()


def test_a_pattern_without_a_match_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'haed\.\*' matches no parameter.*'encoder'"):
        select(("encoder", "head"), ["haed.*"])


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


def test_a_model_file_gives_back_parameters_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    parameters = read_parameters(network()) | {"half": torch.ones(3, dtype=torch.bfloat16)}
    save_model(path, parameters, {"round": "7"})
    save_model(path, parameters, {"round": "8"})
    loaded = load_model(path)
    assert loaded.metadata == {"round": "8"}
    assert digest(loaded.parameters) == digest(parameters)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_half_written_file_never_replaces_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, {"x": torch.ones(1)}, {})

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ModelError, match="No space left"):
        save_model(path, {"x": torch.zeros(1)}, {})
    assert load_model(path).parameters["x"].item() == 1
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 100], ids=["absent", "empty", "junk"])
def test_a_damaged_model_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"give a whole \.safetensors file"):
        load_model(path)


def test_a_folder_that_does_not_exist_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot write the model"):
        save_model(tmp_path / "absent" / "model.safetensors", {"x": torch.ones(1)}, {})
