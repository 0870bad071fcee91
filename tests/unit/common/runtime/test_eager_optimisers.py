import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from wardround.common.runtime import eager_optimisers
from wardround.server.strategies.yogi import Yogi

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"momentum": 0.9, "weight_decay": 0.1, "fused": True}),
    ("SGD", {}),
    ("Adam", {"fused": True}),
    ("AdamW", {"weight_decay": 0.1, "fused": True}),
    ("Adagrad", {"initial_accumulator_value": 0.1}),
]
STEPS = """
import sys, torch
from wardround.common.runtime import eager_optimisers
from wardround.server.strategies.yogi import Yogi
network = torch.nn.Linear(3, 2)
build = [getattr(eager_optimisers, name) for name in ("SGD", "Adam", "AdamW", "Adagrad")]
made = [kind(network.parameters(), lr=0.1) for kind in build]
for optimiser in (*made, Yogi(network.parameters(), 0.1, (0.9, 0.99), 0.001)):
    optimiser.zero_grad()
    network(torch.ones(4, 3)).sum().backward()
    optimiser.step()
    optimiser.load_state_dict(optimiser.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""


def trained(kind: type[torch.optim.Optimizer], options: dict[str, Any]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    network, inputs = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2)), torch.randn(8, 4)
    optimiser = kind(network.parameters(), lr=0.1, **options)  # type: ignore[call-arg]
    for _ in range(5):
        optimiser.zero_grad()
        network(inputs).square().mean().backward()
        optimiser.step()
        optimiser.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    return [weight.detach() for weight in network.parameters()]


@pytest.mark.parametrize(("name", "options"), KINDS)
def test_each_is_torchs_own_to_the_last_bit(name: str, options: dict[str, Any]) -> None:
    ours = trained(getattr(eager_optimisers, name), options)
    theirs = trained(getattr(torch.optim, name), options)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_none_of_them_imports_torchs_compiler() -> None:
    assert subprocess.run([sys.executable, "-c", STEPS], check=False).returncode == 0


def test_a_step_records_no_gradient_and_leaves_recording_as_it_was() -> None:
    network = nn.Linear(3, 2)
    optimiser = eager_optimisers.SGD(network.parameters(), lr=0.1)
    network(torch.ones(4, 3)).sum().backward()
    optimiser.step()
    assert torch.is_grad_enabled()
    assert all(weight.is_leaf and weight.grad_fn is None for weight in network.parameters())


def test_a_closure_computes_the_loss_anew() -> None:
    network = nn.Linear(3, 2)
    before = network.bias.detach().clone()
    optimiser = eager_optimisers.SGD(network.parameters(), lr=0.1)

    def loss() -> float:
        value: torch.Tensor = network(torch.ones(1, 3)).sum()
        value.backward()  # type: ignore[no-untyped-call] # torch's own
        return float(value.detach())

    assert isinstance(optimiser.step(loss), float)
    torch.testing.assert_close(network.bias.detach(), before - 0.1)


def test_hooks_of_a_step_are_called_once() -> None:
    network, called = nn.Linear(3, 2), []
    optimiser = Yogi(network.parameters(), 0.1, (0.9, 0.99), 0.001)
    optimiser.register_step_post_hook(lambda *_: called.append("yogi"))
    torch.optim.SGD(network.parameters(), lr=0.1).step()  # gives torch's class its own hooks
    other = eager_optimisers.SGD(network.parameters(), lr=0.1)
    other.register_step_post_hook(lambda *_: called.append("sgd"))
    network(torch.ones(4, 3)).sum().backward()
    optimiser.step()
    other.step()
    assert called == ["yogi", "sgd"]


def test_a_compiled_step_is_the_eager_one() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    twin = copy.deepcopy(network)
    options: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "fused": False, "foreach": False}
    compiled = eager_optimisers.SGD(network.parameters(), **options)
    eager = eager_optimisers.SGD(twin.parameters(), **options)
    step = torch.compile(compiled.step, backend="eager")
    for _ in range(3):
        for net, move in ((network, step), (twin, eager.step)):
            net.zero_grad()
            net(torch.ones(4, 3)).square().sum().backward()
            move()
    assert torch.equal(network.weight, twin.weight)
