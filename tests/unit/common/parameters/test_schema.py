"""A network is read and set as named tensors; names, shapes and types are compared."""

import pytest
import torch
from torch import Tensor, nn

from wardround.common.errors import ModelError
from wardround.common.parameters.schema import (
    ArraySpec,
    check_schema,
    parameter_count,
    read_parameters,
    schema,
    select,
    write_parameters,
)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def test_the_order_of_names_does_not_matter_to_a_schema_check() -> None:
    parameters = read_parameters(network())
    check_schema(dict(reversed(parameters.items())), schema(network()))


def test_a_schema_counts_bytes() -> None:
    assert ArraySpec("a", (3, 5), "float32").byte_count == 60
    assert ArraySpec("a", (), "int64").byte_count == 8
    assert ArraySpec("a", (0, 5), "bfloat16").byte_count == 0


def test_names_are_selected_by_pattern_in_their_own_order() -> None:
    names = ("encoder.0.weight", "encoder.norm.weight", "head.weight", "head.bias")
    assert select(names, ["head.*"]) == ("head.weight", "head.bias")
    assert select(names, ["head.*", "*.norm.*"]) == names[1:]
    assert select(names, []) == ()


def test_a_pattern_without_a_match_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'haed\.\*' matches no parameter.*'encoder'"):
        select(("encoder", "head"), ["haed.*"])


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


def test_only_what_is_learnt_is_counted() -> None:
    assert parameter_count(network()) == (2 * 9 + 2) + (2 + 2) + (8 * 3 + 3)
