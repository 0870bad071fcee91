"""Optimisers step as their papers say; the learning rate depends on progress alone."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from wardround.client.training.optimisers import (
    OPTIMISERS,
    build_optimiser,
    mean_weights,
    set_learning_rate,
)
from wardround.common.study.plans.learning_rate import SCHEDULES, learning_rate_at
from wardround.common.study.sections.training import TrainingSection


def choices_of(field: str) -> set[str]:
    return set(TrainingSection.model_fields[field].annotation.__args__)  # type: ignore[union-attr]


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(16, 2))


def step_once(training: TrainingSection, gradient: float = 0.5) -> tuple[nn.Module, nn.Module]:
    before, network = small_network(), small_network()
    optimiser = build_optimiser(network, training)
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    optimiser.step()
    return before, network


def test_there_is_an_optimiser_and_a_schedule_for_every_name() -> None:
    assert set(OPTIMISERS) == choices_of("optimiser")
    assert set(SCHEDULES) == choices_of("schedule")


def test_sgd_goes_down_the_gradient_and_decays_every_weight() -> None:
    training = TrainingSection(optimiser="sgd", learning_rate=0.1, weight_decay=0.2)
    before, after = step_once(training)
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(new, old - 0.1 * (0.5 + 0.2 * old))


def test_momentum_adds_up_past_gradients() -> None:
    network = nn.Linear(1, 1, bias=False)
    start = network.weight.item()
    training = TrainingSection(optimiser="sgd", learning_rate=0.1, momentum=0.9)
    optimiser = build_optimiser(network, training)
    for _ in range(2):
        network.weight.grad = torch.ones_like(network.weight)
        optimiser.step()
    assert network.weight.item() == pytest.approx(start - 0.1 * (1 + 1.9))


def test_the_first_step_of_adam_is_the_learning_rate_in_every_direction() -> None:
    before, after = step_once(TrainingSection(optimiser="adam", learning_rate=0.01), gradient=-3.0)
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(new - old, torch.full_like(old, 0.01), rtol=1e-4, atol=1e-7)


def test_adamw_decays_weights_but_no_bias_and_no_normalisation() -> None:
    training = TrainingSection(optimiser="adamw", learning_rate=0.1, weight_decay=0.5)
    before, after = step_once(training, gradient=0.0)
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        factor = 1 - 0.1 * 0.5 if old.ndim > 1 else 1.0
        assert (name in ("0.weight", "3.weight")) == (factor < 1)
        torch.testing.assert_close(new, factor * old)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_the_fused_step_is_the_plain_step(name: str) -> None:
    training = TrainingSection(
        optimiser=name,  # type: ignore[arg-type]
        learning_rate=0.03,
        weight_decay=0.0,
    )
    network, personal_model = small_network(), small_network()
    plain: dict[str, Any] = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
    }
    ours = build_optimiser(network, training)
    theirs = plain[name](
        personal_model.parameters(), lr=0.03, weight_decay=0.0, foreach=False, fused=False
    )
    inputs = torch.randn(8, 1, 4, 4)
    for _ in range(5):
        for net, optimiser in ((network, ours), (personal_model, theirs)):
            optimiser.zero_grad()
            net(inputs).square().sum().backward()
            optimiser.step()
    for a, b in zip(network.parameters(), personal_model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_frozen_parameters_are_left_out() -> None:
    network = small_network()
    network[0].requires_grad_(False)  # type: ignore[index]
    groups = build_optimiser(network, TrainingSection(optimiser="adamw")).param_groups
    assert sum(len(group["params"]) for group in groups) == 4


def rate(schedule: str, progress: float, warmup: float = 0.0) -> float:
    training = TrainingSection(
        schedule=schedule,  # type: ignore[arg-type]
        learning_rate=2.0,
        warmup=warmup,
    )
    return learning_rate_at(training, progress)


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [
        ("constant", 0.0, 2.0),
        ("constant", 1.0, 2.0),
        ("cosine", 0.0, 2.0),
        ("cosine", 0.25, 1 + math.sqrt(0.5)),
        ("cosine", 0.5, 1.0),
        ("cosine", 1.0, 0.0),
        ("polynomial", 0.0, 2.0),
        ("polynomial", 0.5, 2 * 0.5**0.9),
        ("polynomial", 1.0, 0.0),
        ("step", 0.49, 2.0),
        ("step", 0.5, 0.2),
        ("step", 0.75, 0.02),
        ("step", 1.0, 0.02),
    ],
)
def test_the_schedule_at_a_point(schedule: str, progress: float, expected: float) -> None:
    assert rate(schedule, progress) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warmup_rises_in_a_line_to_the_full_rate(schedule: str) -> None:
    assert rate(schedule, 0.0, warmup=0.2) == 0
    assert rate(schedule, 0.05, warmup=0.2) == pytest.approx(0.5)
    assert rate(schedule, 0.2, warmup=0.2) == pytest.approx(2.0)


def test_after_warmup_the_schedule_fills_what_is_left() -> None:
    assert rate("cosine", 0.6, warmup=0.2) == pytest.approx(1.0)
    assert rate("step", 0.59, warmup=0.2) == pytest.approx(2.0)
    assert rate("step", 0.61, warmup=0.2) == pytest.approx(0.2)


def test_a_study_that_is_all_warmup_ends_at_a_number() -> None:
    assert rate("constant", 1.0, warmup=1.0) == pytest.approx(2.0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_progress_outside_the_study_is_its_nearest_end(schedule: str) -> None:
    assert rate(schedule, 1.2) == rate(schedule, 1.0)
    assert rate(schedule, -0.1) == rate(schedule, 0.0)


def test_the_learning_rate_is_set_in_all_groups() -> None:
    weights = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    optimiser = torch.optim.SGD([{"params": [one], "lr": 0.1 + k} for k, one in enumerate(weights)])
    set_learning_rate(optimiser, 0.5)
    assert [group["lr"] for group in optimiser.param_groups] == [0.5, 0.5]


def test_the_mean_of_a_round_weighs_its_latest_networks_most() -> None:
    network, weights = small_network(), []
    mean = mean_weights(network, 0.5)
    assert mean is not None
    for value in (1.0, 5.0, 3.0):
        for weight in network.parameters():
            weight.data.fill_(value)
        mean.take()
        weights.append(value)
        if len(weights) == 1:
            mean.write()
            assert all(bool((weight == value).all()) for weight in network.parameters())
    mean.write()
    expected = (0.25 * 1 + 0.5 * 5 + 3) / 1.75
    for weight in network.parameters():
        torch.testing.assert_close(weight.data, torch.full_like(weight, expected))
    assert mean_weights(network, None) is None


def test_nesterov_looks_ahead() -> None:
    _, ahead = step_once(TrainingSection(optimiser="sgd", momentum=0.9, nesterov=True))
    before, plain = step_once(TrainingSection(optimiser="sgd", momentum=0.9))
    for there, here, start in zip(
        ahead.parameters(), plain.parameters(), before.parameters(), strict=True
    ):
        torch.testing.assert_close(there - start, 1.9 * (here - start), rtol=1e-4, atol=1e-6)
