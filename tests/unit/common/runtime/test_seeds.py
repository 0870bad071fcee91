"""Seeds of what torch draws itself."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from wardround.common.runtime import seeds

CPU, GPU = torch.device("cpu"), torch.device("cuda", 1)


def test_dropout_is_drawn_from_a_seed_and_who_drew_before_goes_on() -> None:
    layer, values = nn.Dropout(0.5), torch.ones(64)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    drawn = []
    for _ in range(2):
        with seeds.dropout_seeded(0, CPU):
            drawn.append(layer(values))
    assert torch.equal(*drawn)
    assert torch.equal(torch.rand(2), expected)


def test_on_a_gpu_the_generator_of_that_gpu_is_seeded_and_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[object] = []

    @contextmanager
    def forked(devices: list[torch.device]) -> Iterator[None]:
        seen.append(devices)
        yield

    monkeypatch.setattr(torch.random, "fork_rng", forked)
    monkeypatch.setattr(seeds, "seed_dropout", lambda seed, device: seen.append((seed, device)))
    with seeds.dropout_seeded(7, GPU):
        assert seen == [[GPU], (7, GPU)]
