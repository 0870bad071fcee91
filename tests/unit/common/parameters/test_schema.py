"""Names, shapes and types are compared, counted and selected."""

import pytest
import torch
from torch import nn

from wardround.common.errors import ModelError
from wardround.common.parameters.network_state import (
    read_parameters,
)
from wardround.common.parameters.schema import ArraySpec, check_schema, schema, select


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
