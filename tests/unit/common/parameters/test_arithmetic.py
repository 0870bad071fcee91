"""Two models have a difference; one has a digest."""

import numpy as np
import pytest
import torch
from torch import nn

from wardround.common.errors import ModelError
from wardround.common.parameters.arithmetic import difference, digest


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


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
