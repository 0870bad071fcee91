"""The private step: claims P5 to P9, each a test, and what else must not tell of a patient."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.hospitals.private_ward import (
    COMPUTATION,
    Wide,
    empty_ward,
    flat,
    network_of,
    plan_with,
    start_of,
    update_of,
    ward_of,
)
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.privacy import step
from wardround.client.privacy.step import StepComputation, train_privately
from wardround.client.training.local import LocalWork
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.objectives.registry import build_objective
from wardround.client.training.schedule import SchedulePosition
from wardround.common.errors import RunError
from wardround.common.models.sharing import trained_parameters
from wardround.common.privacy.secure_random import KEY_BYTES, Randomness
from wardround.common.study.plans.strategy import plan_from
from wardround.common.study.sections.federation import FederationSection


# --- Micro-batches, copies, other frameworks ----------------------------------------------
@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.integers(1, 7), min_size=1, max_size=8),
    microbatch=st.integers(1, 40),
    method=st.sampled_from(["loop", "ghost", "vmap"]),
)
def test_a_micro_batch_never_changes_the_result(
    counts: list[int], microbatch: int, method: str
) -> None:
    ward, plan = ward_of(counts), plan_with(steps=2, clip_norm=0.3, expected_patients=4)
    whole = update_of(ward, plan, computation=StepComputation("loop", 1000))
    cut = update_of(ward, plan, computation=StepComputation(method, microbatch))
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-5)


def test_equal_copies_of_an_example_change_nothing() -> None:
    ward, plan = ward_of([2, 1, 3]), plan_with(clip_norm=0.3)
    once, thrice = (
        update_of(ward, plan, computation=StepComputation("loop", 4, k)) for k in (1, 3)
    )
    torch.testing.assert_close(once, thrice, rtol=0, atol=1e-6)


def test_a_step_on_patients_of_one_example_is_that_of_opacus() -> None:
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    ward = ward_of([1] * 12)
    ours = update_of(ward, plan_with(clip_norm=0.2, expected_patients=5))
    network = network_of()
    before = flat(trained_parameters(network))
    sampled = GradSampleModule(network, loss_reduction="sum")
    optimiser = DPOptimizer(
        torch.optim.SGD(network.parameters(), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=0.2,
        expected_batch_size=5,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.functional.cross_entropy(sampled(ward.images), ward.targets, reduction="sum").backward()
    optimiser.step()
    theirs = before - flat(trained_parameters(network))
    assert theirs.norm() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_noise_is_as_large_as_that_of_opacus() -> None:
    from opacus.optimizers import DPOptimizer

    weight = nn.Parameter(torch.zeros(400_000))
    weight.grad_sample = torch.zeros(1, 400_000)
    optimiser = DPOptimizer(
        torch.optim.SGD([weight], lr=1.0),
        noise_multiplier=1.3,
        max_grad_norm=0.7,
        expected_batch_size=4,
    )
    optimiser.step()
    plan = plan_with(noise_multiplier=1.3, clip_norm=0.7, expected_patients=4)
    ours = update_of(empty_ward(2), plan, Wide())
    assert (ours.std() / weight.detach().std()).item() == pytest.approx(1.0, rel=0.01)


# --- What follows the noise -----------------------------------------------------------
def test_the_loss_of_a_private_round_is_not_told() -> None:
    network, plan = network_of(), plan_with(noise_multiplier=1.0)
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    start = start_of(network, plan, "fedavg")
    work = train_privately(start, ward_of([1]), plan, optimiser, COMPUTATION)
    assert isinstance(work, LocalWork)
    assert np.isnan(work.mean_loss)


def test_an_objective_sees_noised_gradients_and_no_batch() -> None:
    seen: list[Tensor] = []

    class Spy:
        def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
            raise AssertionError

        def correct(self) -> None:
            seen.append(network.weight.grad.clone())

    network, plan = Wide(), plan_with(noise_multiplier=1.0, steps=2)
    start = start_of(network, plan, "fedprox")
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    train_privately(start, empty_ward(3), plan, optimiser, COMPUTATION, Spy())
    assert [round(gradient.std().item(), 1) for gradient in seen] == [1.0, 1.0]


def test_the_proximal_pull_is_that_of_fedprox() -> None:
    network, plan = network_of(), plan_with(steps=2, sampling_rate=1e-12)
    start = start_of(network, plan, "fedprox")
    objective = build_objective(start)
    with torch.no_grad():
        network[1].bias += 1.0
    moved = network[1].bias.detach().clone()
    anchor = moved - 1.0
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    train_privately(start, ward_of([1]), plan, optimiser, COMPUTATION, objective)
    pull = 1 - start.plan.options.proximal_weight
    torch.testing.assert_close(network[1].bias.detach(), anchor + pull**2)


def test_the_learning_rate_follows_the_study() -> None:
    network, plan = Wide(), plan_with(noise_multiplier=1.0, steps=4)
    start = start_of(network, plan, "fedavg", schedule="cosine", learning_rate=1e-3)
    optimiser = torch.optim.SGD(network.parameters(), lr=99.0)
    rates: list[float] = []
    optimiser.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    train_privately(start, empty_ward(1), plan, optimiser, COMPUTATION)
    assert rates == pytest.approx([1e-3 * (1 + np.cos(np.pi * k / 4)) / 2 for k in range(4)])


def test_frozen_parameters_have_neither_gradient_nor_noise() -> None:
    network = network_of()
    network[1].requires_grad_(False)
    before = network[1].weight.clone()
    update_of(ward_of([1, 2]), plan_with(noise_multiplier=1.0, steps=3), network)
    assert torch.equal(before, network[1].weight)
    assert network[1].weight.grad is None


def test_no_buffer_changes() -> None:
    network = network_of()
    network.register_buffer("counter", torch.zeros(3))
    network.insert(2, nn.GroupNorm(2, 8))
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    update_of(ward_of([1, 2]), plan_with(noise_multiplier=1.0), network)
    assert all(torch.equal(value, buffers[name]) for name, value in network.named_buffers())


# --- What is refused --------------------------------------------------------------------
def with_statistics(start: LocalStart) -> LocalStart:
    start.network.insert(2, nn.BatchNorm1d(8))
    return start


def with_training(**training: object) -> Callable[[LocalStart], LocalStart]:
    return lambda start: replace(start, training=start.training.model_copy(update=training))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda start: replace(start, position=SchedulePosition(0, 1, 5)),
            "5 steps here and 1 in the privacy plan",
        ),
        (lambda start: replace(start, plan=plan_from(FederationSection(strategy="moon"))), "past"),
        (lambda start: replace(start, plan=plan_from(FederationSection(strategy="ditto"))), "past"),
        (with_training(precision="bfloat16"), "too coarse"),
        (with_training(class_weights="balanced"), "counts the site's patients"),
        (with_statistics, "mixes patients"),
        (lambda start: replace(start, loss=nn.CrossEntropyLoss()), "no value for each example"),
    ],
)
def test_a_start_that_would_tell_of_patients_is_refused(
    spoil: Callable[[LocalStart], LocalStart], message: str
) -> None:
    network, plan = network_of(), plan_with()
    start = spoil(start_of(network, plan, "fedavg"))
    before = flat(trained_parameters(network))
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    with pytest.raises(RunError, match=message):
        train_privately(start, ward_of([1]), plan, optimiser, COMPUTATION)
    assert torch.equal(before, flat(trained_parameters(network)))


def test_with_a_key_of_a_test_a_round_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "Randomness", lambda: Randomness(bytes(KEY_BYTES)))
    plan = plan_with(noise_multiplier=1.0, sampling_rate=0.5, steps=3)
    assert torch.equal(*(update_of(ward_of([2] * 9), plan) for _ in range(2)))
