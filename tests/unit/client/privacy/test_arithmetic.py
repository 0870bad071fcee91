"""A private step computes in whole float32, whatever the process has chosen for speed."""

from collections.abc import Iterator

import pytest
import torch
from tests.support.hospitals.private_ward import (
    COMPUTATION,
    network_of,
    plan_with,
    start_of,
    ward_of,
)

from wardround.client.privacy.arithmetic import exact_arithmetic
from wardround.client.privacy.step import train_privately

EXACT = ("highest", False, False, True, False)


def settings_now() -> tuple[object, ...]:
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
    )


@pytest.fixture(params=["highest", "high", "medium"])
def fast(request: pytest.FixtureRequest) -> Iterator[tuple[object, ...]]:
    """A process that computes fast and coarsely, or as torch does by default."""
    before = settings_now()
    torch.set_float32_matmul_precision(request.param)
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    yield settings_now()
    torch.set_float32_matmul_precision(str(before[0]))
    torch.backends.cudnn.allow_tf32 = bool(before[2])
    torch.backends.cudnn.benchmark = bool(before[4])


def test_the_settings_hold_within_and_are_restored_afterwards(fast: tuple[object, ...]) -> None:
    with exact_arithmetic():
        assert settings_now() == EXACT
    assert settings_now() == fast


def test_they_are_restored_after_an_error_too(fast: tuple[object, ...]) -> None:
    with pytest.raises(ZeroDivisionError), exact_arithmetic():
        raise ZeroDivisionError
    assert settings_now() == fast


def test_a_private_step_computes_exactly_and_leaves_the_process_as_it_was(
    fast: tuple[object, ...],
) -> None:
    network, plan, seen = network_of(), plan_with(noise_multiplier=1.0, steps=2), []
    network.register_forward_pre_hook(lambda *_: seen.append(settings_now()))
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    optimiser.register_step_pre_hook(lambda *_: seen.append(settings_now()))
    train_privately(
        start_of(network, plan, "fedavg"), ward_of([1, 2]), plan, optimiser, COMPUTATION
    )
    assert len(seen) >= 4
    assert set(seen) == {EXACT}
    assert settings_now() == fast
