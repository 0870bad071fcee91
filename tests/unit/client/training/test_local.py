"""The local step's small parts: seeds, devices, batches, and a loss that is no number."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from wardround.client.data.batch import Batch
from wardround.client.site.device import choose_device
from wardround.client.training.local import LocalWork, train_locally
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.optimisers import build_optimiser
from wardround.client.training.schedule import SchedulePosition, draw_batches, steps_a_round
from wardround.common.errors import InputError, RunError
from wardround.common.models.sharing import layout_of
from wardround.common.parameters.schema import read_parameters
from wardround.common.runtime.seeds import derive_seed, generator_for
from wardround.common.study.plans.strategy import plan_from
from wardround.common.study.sections.federation import FederationSection
from wardround.common.study.sections.training import TrainingSection


def draw(targets: torch.Tensor, seed: int = 0, **training: object) -> list[torch.Tensor]:
    section = TrainingSection.model_validate(training)
    return list(draw_batches(targets, section, torch.Generator().manual_seed(seed)))


# --- Batches -------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 12), epochs=st.integers(1, 3))
def test_every_epoch_holds_each_example_exactly_once(count: int, size: int, epochs: int) -> None:
    batches = draw(torch.zeros(count), batch_size=size, local_epochs=epochs)
    a_pass = -(-count // size)
    assert len(batches) == a_pass * epochs
    for epoch in range(epochs):
        part = torch.cat(batches[epoch * a_pass : (epoch + 1) * a_pass])
        assert sorted(part.tolist()) == list(range(count))


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 12), steps=st.integers(1, 30))
def test_the_number_of_local_steps_is_kept_exactly(count: int, size: int, steps: int) -> None:
    batches = draw(torch.zeros(count), batch_size=size, local_steps=steps)
    assert len(batches) == steps
    assert steps_a_round(count, TrainingSection(batch_size=size, local_steps=steps)) == steps
    whole = torch.cat(batches)[:count].tolist()
    assert len(set(whole)) == len(whole), "no example comes twice before all came once"


@pytest.mark.parametrize(("count", "size"), [(1, 2), (5, 2), (9, 8), (8, 8)])
def test_a_last_batch_of_one_takes_in_another_example_where_a_step_needs_two(
    count: int, size: int
) -> None:
    training = TrainingSection(batch_size=size)
    generators = (torch.Generator().manual_seed(0) for _ in range(2))
    batches, usual = (
        list(draw_batches(torch.zeros(count), training, generator, fewest))
        for generator, fewest in zip(generators, (2, 1), strict=True)
    )
    assert min(len(batch) for batch in batches) >= min(2, size)
    assert len(batches) == len(usual)
    assert all(b[: len(u)].tolist() == u.tolist() for b, u in zip(batches, usual, strict=True))


def test_balanced_sampling_draws_each_class_equally_often() -> None:
    targets = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    drawn = torch.cat(draw(targets, batch_size=100, local_steps=90, sampling="balanced"))
    shares = torch.bincount(targets[drawn]).double() / len(drawn)
    # 9000 draws: a standard error of 0.005 on each share of a third.
    assert torch.allclose(shares, torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.02)


def test_a_class_that_a_site_does_not_hold_does_not_break_balanced_sampling() -> None:
    targets = torch.tensor([0, 0, 0, 2])
    drawn = torch.cat(draw(targets, batch_size=50, local_steps=20, sampling="balanced"))
    shares = torch.bincount(targets[drawn], minlength=3).double() / len(drawn)
    assert shares[1] == 0
    assert shares[2] == pytest.approx(0.5, abs=0.05)


def test_the_order_depends_on_the_generator_alone() -> None:
    targets = torch.zeros(30)
    first, again, other = (torch.cat(draw(targets, seed, batch_size=7)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# --- Seeds and devices ---------------------------------------------------------
def test_a_seed_depends_on_every_part_and_on_no_process() -> None:
    seed = derive_seed(0, "north", 3, "batches")
    assert 0 <= seed < 2**63
    others = {derive_seed(1, "north", 3, "batches"), derive_seed(0, "south", 3, "batches")}
    others |= {derive_seed(0, "north", 4, "batches"), derive_seed(0, "north", 3, "dropout")}
    assert seed not in others
    assert len(others) == 4
    assert derive_seed("a", "b") != derive_seed("ab")
    code = (
        "from wardround.common.runtime.seeds import derive_seed;"
        "print(derive_seed(0,'north',3,'batches'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == seed


def test_generators_of_one_seed_draw_the_same() -> None:
    assert torch.equal(
        torch.rand(5, generator=generator_for(1, "a")),
        torch.rand(5, generator=generator_for(1, "a")),
    )


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:", "mps", "CPU", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    if name == "cuda:" and torch.cuda.is_available():
        pytest.skip("a GPU is there")
    with pytest.raises(InputError, match="cpu"):
        choose_device(name)


def test_a_gpu_that_is_not_there_is_refused_with_the_number_there_is() -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with pytest.raises(InputError, match=rf"offers {count} GPU\(s\)\. Use --device cpu or auto"):
        choose_device(f"cuda:{count}")


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")


# --- The step ------------------------------------------------------------------
def squared(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ((outputs - targets) ** 2).mean()


def train(weight: float, inputs: list[float], **training: object) -> tuple[float, LocalWork]:
    """Train ``weight * input`` towards 0 by gradient descent, a step an input."""
    network = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(weight)
    section = TrainingSection.model_validate({"optimiser": "sgd", **training})
    plan = plan_from(FederationSection())
    parameters = read_parameters(network)
    start = LocalStart(
        network=network,
        parameters=parameters,
        auxiliary={},
        memory={},
        plan=plan,
        layout=layout_of(network, plan),
        training=section,
        position=SchedulePosition.of_round(1, 1, len(inputs)),
        loss=squared,
    )
    optimiser = build_optimiser(network, section)
    batches = [Batch(None, torch.tensor([[v]]), torch.tensor([[0.0]])) for v in inputs]
    work = train_locally(start, batches, optimiser)
    return network.weight.item(), work


def test_the_steps_are_those_of_gradient_descent_by_hand() -> None:
    weight, work = train(1.0, [1.0, 2.0], learning_rate=0.1)
    # w = 1: loss 1, gradient 2; w = 0.8: loss (2 * 0.8)^2 = 2.56, gradient 2 * 4 * 0.8 = 6.4.
    assert weight == pytest.approx(0.8 - 0.64)
    assert work.updates == 2
    assert work.mean_loss == pytest.approx((1 + 2.56) / 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_step_with_its_remedy(value: float) -> None:
    with pytest.raises(RunError, match=r"training loss is .* lower training\.learning_rate"):
        train(1.0, [1.0, value], learning_rate=0.1)


def test_a_clipped_gradient_has_the_norm_that_the_study_says() -> None:
    weight, _ = train(100.0, [1.0], learning_rate=1.0, gradient_clip=0.5)
    assert weight == pytest.approx(99.5, abs=1e-4)
