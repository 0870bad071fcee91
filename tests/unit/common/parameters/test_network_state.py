"""A network's parameters are read as copies, and set only where they fit."""

import pytest
import torch
from torch import Tensor, nn

from wardround.common.errors import ModelError
from wardround.common.parameters.network_state import (
    parameter_count,
    read_parameters,
    write_parameters,
)
from wardround.common.parameters.schema import schema


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return schema(a) == schema(b) and all(torch.equal(a[name], b[name]) for name in a)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


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
