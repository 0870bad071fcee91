"""Compressed updates: errors bounded by hand, nothing lost over the rounds, nothing trusted."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from torch import Tensor, nn

from wardround.common.errors import ModelError, StudyError
from wardround.common.parameters.array_records import from_array_record, to_array_record
from wardround.common.parameters.compression import (
    COMPRESSIONS,
    CompressionOptions,
    apply_update,
    compress,
    compressed_schema,
    decompress,
    update_of,
)
from wardround.common.parameters.schema import Parameters, read_parameters, schema

OPTIONS = CompressionOptions()
LOSSY = tuple(kind for kind in COMPRESSIONS if kind != "none")


def network() -> Parameters:
    """A small CNN with BatchNorm: 114,000 floating numbers, one integer a normalisation."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.Conv2d(16, 64, 3),
        nn.BatchNorm2d(64),
        nn.Conv2d(64, 128, 3),
        nn.BatchNorm2d(128),
        nn.Flatten(),
        nn.Linear(240, 128),
    )
    return read_parameters(layers)


def drawn_update(model: Parameters, seed: int = 0) -> Parameters:
    rng = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(tensor.shape, generator=rng) * 0.01
        if tensor.is_floating_point()
        else torch.tensor(5)
        for name, tensor in model.items()
    }


def vector(update: Parameters) -> Tensor:
    return torch.cat(
        [
            t.reshape(-1).double()
            for t in (update[name] for name in sorted(update))
            if t.is_floating_point()
        ]
    )


# --- golden values -------------------------------------------------------------------------------


def test_eight_bits_by_hand() -> None:
    # The scale is 1.27 / 127 = 0.01; 0.004 rounds to 0 and 0.006 to 1 step.
    update = {"w": torch.tensor([[1.27, -0.5, 0.004, 0.006]])}
    sent, residual = compress(update, "int8", OPTIONS)
    assert sent["codes"].tolist() == [127, -50, 0, 1]
    assert sent["scales"].tolist() == pytest.approx([0.01])
    assert residual["w"].tolist()[0] == pytest.approx([0, 0, 0.004, -0.004], abs=1e-7)


def test_four_bits_by_hand() -> None:
    # The scale is 7 / 7 = 1. Codes 7, -2, 3 are written as 15, 6, 11: bytes 6 * 16 + 15 and
    # (an empty half is 8) 8 * 16 + 11.
    update = {"w": torch.tensor([[7.0, -2.4, 3.3]])}
    sent, residual = compress(update, "int4", OPTIONS)
    assert sent["codes"].tolist() == [111, 139]
    assert residual["w"].tolist()[0] == pytest.approx([0, -0.4, 0.3], abs=1e-6)


def test_the_largest_values_by_hand_and_the_first_of_equals() -> None:
    update = {"w": torch.tensor([0.5, -3.0, 2.0, -2.0, 2.0])}
    sent, residual = compress(update, "top-k", CompressionOptions(kept_fraction=0.6))
    assert sent["places"].tolist() == [1, 2, 3]
    assert sent["values"].tolist() == [-3.0, 2.0, -2.0]
    assert residual["w"].tolist() == [0.5, 0.0, 0.0, 0.0, 2.0]


def test_rows_of_a_wide_matrix_have_their_own_scale() -> None:
    update = {"w": torch.stack([torch.full((256,), 1.27), torch.full((256,), 127.0)])}
    sent, _ = compress(update, "int8", OPTIONS)
    assert sent["scales"].tolist() == pytest.approx([0.01, 1.0])


@pytest.mark.parametrize(("kind", "limit"), [("int8", 127), ("int4", 7)])
def test_quantisation_is_within_half_a_step(kind: str, limit: int) -> None:
    update = drawn_update(network())
    sent, _ = compress(update, kind, OPTIONS)
    back = decompress(sent, kind, OPTIONS, schema(network()))
    for name, tensor in update.items():
        if tensor.is_floating_point() and tensor.ndim > 1:
            step = float(tensor.abs().max()) / limit
            assert float((tensor - back[name]).abs().max()) <= 0.5 * step * (1 + 1e-5)


@pytest.mark.parametrize(("kind", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_half_precision_is_numpys_or_within_its_bits(kind: str, bits: int) -> None:
    values = np.random.default_rng(0).normal(size=500).astype(np.float32)
    sent, _ = compress({"w": torch.from_numpy(values)}, kind, OPTIONS)
    back = decompress(sent, kind, OPTIONS, schema({"w": torch.zeros(500)}))["w"].numpy()
    assert (np.abs(back - values) <= np.abs(values) * 2.0**-bits).all()
    if kind == "float16":
        assert (back == values.astype(np.float16)).all()


def test_what_is_too_large_for_half_precision_arrives_later() -> None:
    update, residual = {"w": torch.tensor([1e5])}, None
    total = 0.0
    for _ in range(2):
        sent, residual = compress(update, "float16", OPTIONS, residual)
        total += float(decompress(sent, "float16", OPTIONS, schema(update))["w"])
        update = {"w": torch.tensor([0.0])}
    assert total == pytest.approx(1e5, rel=1e-3)


# --- error feedback ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOSSY)
def test_over_the_rounds_all_arrives_but_the_last_residual(kind: str) -> None:
    model, residual = network(), None
    truth = torch.zeros_like(vector(drawn_update(model)))
    arrived = truth.clone()
    for number in range(20):
        update = drawn_update(model, number)
        truth += vector(update)
        sent, residual = compress(update, kind, OPTIONS, residual)
        arrived += vector(decompress(sent, kind, OPTIONS, schema(model)))
    assert residual is not None
    torch.testing.assert_close(arrived + vector(residual), truth, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["int4", "top-k"])
def test_feedback_keeps_the_error_from_growing(kind: str) -> None:
    # The same small update each round: without feedback its error grows with the rounds.
    update = {"w": torch.tensor([[1.0, 0.06, 0.05, -0.04] * 5])}
    options = CompressionOptions(kept_fraction=0.3)
    errors = {}
    for feedback in (True, False):
        residual, arrived = None, torch.zeros(20, dtype=torch.float64)
        for _ in range(60):
            sent, lost = compress(update, kind, options, residual)
            residual = lost if feedback else None
            arrived += vector(decompress(sent, kind, options, schema(update)))
        errors[feedback] = float((arrived - 60 * vector(update)).abs().max())
    assert errors[False] >= 2.0
    assert errors[True] < 0.5 * errors[False]


# --- size ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "share"), [("float16", 0.505), ("int8", 0.27), ("int4", 0.145), ("top-k", 0.105)]
)
def test_bytes_on_the_wire_with_headers(kind: str, share: float) -> None:
    update = drawn_update(network())
    assert vector(update).numel() > 100_000
    sent, _ = compress(update, kind, OPTIONS)
    whole = sum(tensor.numel() * 4 for tensor in update.values())
    assert to_array_record(sent).count_bytes() <= share * whole


def test_a_net_of_many_thin_tensors_still_keeps_the_bound() -> None:
    update = {f"norm{i}": torch.randn(500) for i in range(100)}
    update["w"] = torch.randn(100, 1000)
    sent, _ = compress(update, "int8", OPTIONS)
    assert to_array_record(sent).count_bytes() <= 0.27 * 150_000 * 4


def test_few_thin_tensors_stay_exact() -> None:
    update = {"w": torch.randn(100, 300), "bias": torch.randn(100)}
    sent, residual = compress(update, "int8", OPTIONS)
    assert torch.equal(decompress(sent, "int8", OPTIONS, schema(update))["bias"], update["bias"])
    assert not residual["bias"].any()


# --- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", COMPRESSIONS)
@given(
    values=arrays_of.arrays(
        np.float32,
        arrays_of.array_shapes(min_dims=0, max_dims=3, max_side=7),
        elements=st.floats(-1e4, 1e4, width=32),
    )
)
@settings(max_examples=40, deadline=None)
def test_sent_and_lost_make_the_whole(kind: str, values: np.ndarray) -> None:
    update = {"w": torch.from_numpy(values), "count": torch.tensor(-3)}
    sent, residual = compress(update, kind, OPTIONS)
    record = to_array_record(sent)
    expected = schema({"w": update["w"], "count": torch.tensor(0)})
    arrived = from_array_record(record, compressed_schema(expected, kind, OPTIONS))
    back = decompress(arrived, kind, OPTIONS, expected)
    assert int(back["count"]) == -3
    assert back["w"].shape == update["w"].shape
    whole = back["w"] + residual.get("w", torch.zeros(()))
    torch.testing.assert_close(whole, update["w"], rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_the_same_update_gives_the_same_bytes(kind: str) -> None:
    update = drawn_update(network())
    first, _ = compress(update, kind, OPTIONS)
    again, _ = compress({n: t.clone() for n, t in update.items()}, kind, OPTIONS)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_an_update_leads_back_to_the_model_with_its_types() -> None:
    received = {
        "w": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        "n": torch.tensor(7),
        "flag": torch.tensor(True),
        "double": torch.tensor([0.1], dtype=torch.float64),
    }
    model = {
        "w": torch.tensor([1.5, 1.0], dtype=torch.bfloat16),
        "n": torch.tensor(9),
        "flag": torch.tensor(False),
        "double": torch.tensor([0.7], dtype=torch.float64),
    }
    options = CompressionOptions(kept_fraction=1.0)
    for kind in ("none", "top-k"):
        sent, _ = compress(update_of(model, received), kind, options)
        back = apply_update(received, decompress(sent, kind, options, schema(received)))
        for name, tensor in model.items():
            torch.testing.assert_close(back[name], tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_a_model_of_integers_only_travels(kind: str) -> None:
    sent, _ = compress({"n": torch.tensor([1, 2])}, kind, OPTIONS)
    back = decompress(sent, kind, OPTIONS, schema({"n": torch.zeros(2, dtype=torch.int64)}))
    assert back["n"].tolist() == [1, 2]


# --- what is refused -----------------------------------------------------------------------------


def test_values_that_are_not_finite_are_not_sent() -> None:
    with pytest.raises(ModelError, match="not finite"):
        compress({"w": torch.tensor([1.0, math.nan])}, "int8", OPTIONS)


@pytest.mark.parametrize("kind", LOSSY)
@pytest.mark.parametrize("change", ["missing", "unknown", "longer", "type"])
def test_arrays_of_another_shape_are_refused(kind: str, change: str) -> None:
    expected = schema(network())
    sent, _ = compress(drawn_update(network()), kind, OPTIONS)
    name = next(iter(sent))
    if change == "missing":
        del sent[name]
    elif change == "unknown":
        sent["more"] = torch.zeros(1)
    elif change == "longer":
        sent[name] = torch.cat([sent[name], sent[name][:1]])
    else:
        sent[name] = sent[name].double()
    with pytest.raises(ModelError, match="do not fit"):
        decompress(sent, kind, OPTIONS, expected)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("int8", "codes", -128),
        ("int8", "scales", -1.0),
        ("int4", "codes", 0),
        ("int4", "scales", math.inf),
        ("float16", "values", math.nan),
        ("top-k", "places", -1),
        ("top-k", "places", 10**6),
        ("top-k", "values", math.inf),
    ],
)
def test_values_that_no_site_of_ours_sends_are_refused(kind: str, name: str, value: float) -> None:
    sent, _ = compress(drawn_update(network()), kind, OPTIONS)
    sent[name][0] = value
    with pytest.raises(ModelError, match="send it anew"):
        decompress(sent, kind, OPTIONS, schema(network()))


def test_an_unknown_kind_lists_the_known() -> None:
    with pytest.raises(StudyError, match="Did you mean 'int8'"):
        compressed_schema(schema(network()), "int", OPTIONS)


@pytest.mark.parametrize("fraction", [0.0, 1.5, math.nan])
def test_a_share_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(StudyError, match="kept_fraction"):
        CompressionOptions(kept_fraction=fraction)


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "int8", "int4", "top-k"])
def test_the_order_in_which_tensors_are_listed_changes_nothing(kind: str) -> None:
    options = CompressionOptions(kept_fraction=1.0)
    update = {"b": torch.arange(6.0).reshape(2, 3), "a": -torch.ones(6).reshape(3, 2)}
    arrays, _ = compress(update, kind, options)
    turned = dict(reversed(update.items()))
    found = decompress(arrays, kind, options, schema(turned))
    assert torch.allclose(found["a"], update["a"], atol=0.4)
    assert torch.allclose(found["b"], update["b"], atol=0.4)
