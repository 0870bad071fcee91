"""The next model of updates: aggregation, the server's step, Flower's own strategies."""

from typing import Any

import pytest
import torch
from tests.support.hospitals.linear_federation import (
    Federation,
    best_weight,
    descend,
    error,
    hospitals,
    normalised,
    run,
)
from torch import Tensor

from wardround.common.errors import RunError
from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.arithmetic import digest
from wardround.common.study.plans.strategy import PRESETS, plan_from
from wardround.common.study.sections.federation import FederationSection
from wardround.server.strategies.flower_strategy import StockStrategy


# --- The combination -------------------------------------------------------------
def test_fednova_does_not_lean_to_the_hospital_that_makes_more_steps() -> None:
    def settled(name: str, steps: int) -> Tensor:
        sites = hospitals(steps=2)
        sites[2].steps = steps
        training = {"learning_rate": 0.01}
        return Federation(sites, {"strategy": name}, training).run(200).weight

    optimum = best_weight(hospitals())
    assert error(settled("fednova", 12), optimum) < 0.03
    assert error(settled("fedavg", 12), optimum) > 0.1


def test_fednova_is_fedavg_where_all_make_the_same_steps() -> None:
    assert torch.allclose(run("fednova", 3), run("fedavg", 3), atol=1e-6)


def test_momentum_counts_in_the_steps_of_fednova() -> None:
    from wardround.common.parameters.steps import effective_steps

    rho, steps = 0.9, 7
    # What step j's gradient has moved the model by in the end: 1 + rho + ... (Wang et al. 2020).
    by_hand = sum(sum(rho**k for k in range(steps - j)) for j in range(steps))
    assert effective_steps(steps, rho) == pytest.approx(by_hand)
    assert effective_steps(steps, 0.0) == steps


def test_qfedavg_without_fairness_is_the_plain_mean() -> None:
    plain = Federation(hospitals((10, 30, 60)), {"aggregation": "mean"}).run(3).weight
    assert torch.allclose(run("qfedavg", 3, (10, 30, 60), fairness=0.0), plain, atol=1e-5)


def test_qfedavg_leans_to_the_hospital_with_the_largest_loss() -> None:
    worst = hospitals()[2]

    def direction(fairness: float) -> Tensor:
        moved = run("qfedavg", fairness=fairness)
        return moved / moved.norm()

    towards = descend(worst, torch.zeros(2), worst.steps)
    towards = towards / towards.norm()
    angles = [float(direction(q) @ towards) for q in (0.0, 1.0, 4.0)]
    assert angles == sorted(angles)
    assert angles[-1] > angles[0] + 0.001


def test_a_cyclic_round_trains_one_hospital_after_the_other() -> None:
    weight = torch.zeros(2)
    for _ in range(2):
        for site in hospitals():
            weight = descend(site, weight, site.steps)
    assert torch.allclose(run("cyclic", 2), weight, atol=1e-5)


def test_the_plain_mean_counts_every_hospital_the_same() -> None:
    sites = hospitals((10, 90))
    found = Federation(sites, {"aggregation": "mean"}).run(1).weight
    expected = sum(descend(site, torch.zeros(2), site.steps) for site in sites) / 2
    assert torch.allclose(found, expected, atol=1e-6)
    weighted = run("fedavg", 1, (10, 90))
    expected = sum(
        descend(site, torch.zeros(2), site.steps) * share
        for site, share in zip(sites, (0.1, 0.9), strict=True)
    )
    assert torch.allclose(weighted, expected, atol=1e-6)


# --- The server's step -----------------------------------------------------------
RATE, TAU = 0.1, 1e-3


def stepped(name: str, **more: Any) -> Tensor:
    return run(name, server_learning_rate=RATE, **more)


def test_the_first_step_of_fedadam_has_the_length_of_its_rate_in_each_number() -> None:
    change = run("fedavg")
    expected = RATE * change / (change.abs() + TAU)
    assert torch.allclose(stepped("fedadam", server_epsilon=TAU), expected, atol=1e-6)


def test_the_first_step_of_fedyogi_is_the_papers() -> None:
    gradient = -run("fedavg")
    variance = TAU**2 - 0.01 * gradient**2 * torch.sign(TAU**2 - gradient**2)
    expected = -RATE * 0.1 * gradient / (variance.sqrt() + TAU)
    assert torch.allclose(stepped("fedyogi", server_epsilon=TAU), expected, atol=1e-6)


def test_the_first_step_of_fedadagrad_is_the_papers() -> None:
    gradient = -run("fedavg")
    expected = -RATE * gradient / ((TAU**2 + gradient**2).sqrt() + TAU)
    assert torch.allclose(stepped("fedadagrad", server_epsilon=TAU), expected, atol=1e-6)


def test_fedavgm_without_momentum_is_fedavg_and_else_goes_on() -> None:
    assert torch.allclose(run("fedavgm", 3, server_momentum=0.0), run("fedavg", 3), atol=1e-6)
    federation = Federation(hospitals(), {"strategy": "fedavgm"})
    first = federation.run(1).weight.clone()
    mean = Federation(hospitals(), {"strategy": "fedavg"})
    mean.model = {"weight": first.unsqueeze(0)}
    plain_change = mean.run(1).weight - first
    assert torch.allclose(federation.run(1).weight, first + 0.9 * first + plain_change, atol=1e-5)


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "fedyogi", "fedadagrad", "feddyn"])
def test_running_statistics_take_no_step(name: str) -> None:
    federation = Federation(hospitals(), {"strategy": name}, network=normalised())
    plain = Federation(hospitals(), {"strategy": "fedavg"}, network=normalised()).run(1).model
    found = federation.run(1).model
    for part in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        if name != "feddyn":  # its hospitals train otherwise, so their statistics are others
            assert torch.equal(found[part], plain[part])
        assert found[part].dtype == plain[part].dtype
    assert float(federation.run(5).model["1.running_var"].min()) > 0


# --- Going on --------------------------------------------------------------------
@pytest.mark.parametrize("name", [*PRESETS, "flower:FedAdam", "flower:FedAvgM", "flower:FedYogi"])
def test_a_server_that_goes_on_from_its_state_makes_the_same_model(name: str) -> None:
    def make() -> Federation:
        options = {"assumed_hostile": 0} if name == "bulyan" else {}
        chosen = {"strategy": name, "options": options}
        return Federation(hospitals((9, 20, 20, 30, 31), 1), chosen, network=normalised())

    whole, cut = make().run(3), make().run(2)
    state = {key: tensor.clone() for key, tensor in cut.strategy.state().items()}
    cut.strategy = cut.new_strategy()
    cut.strategy.restore(state)
    assert digest(cut.run(1).model) == digest(whole.model)


# --- Flower's own ----------------------------------------------------------------
def test_flowers_steps_do_not_depend_on_the_order_in_which_a_site_names_its_numbers() -> None:
    plan = plan_from(FederationSection(strategy="flower:FedAvgM"))
    model = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    strategy = StockStrategy(plan, frozenset(model), 2)
    strategy.begin(1, model)
    for site in ("north", "south"):
        moved = {"bias": torch.ones(2), "weight": torch.full((2, 3), 3.0)}
        strategy.accumulate(SiteUpdate(site, "digest", 1, 0, moved, 10, 1, 0.0, 0.0))
    found = strategy.finish()
    assert torch.equal(found["weight"], torch.full((2, 3), 3.0))
    assert torch.equal(found["bias"], torch.ones(2))


def test_a_class_of_flower_that_has_too_few_updates_says_how_many_it_needs_and_nothing_itself(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(
        RunError, match=r"Bulyan made no model of 3 updates \(.*least 7.*: add sites"
    ):
        run("flower:Bulyan", 1, (10, 30, 60))
    said = capfd.readouterr()
    assert said.out + said.err == ""


def test_flowers_mean_is_ours() -> None:
    found = run("flower:FedAvg", 3, (10, 30, 60))
    assert torch.allclose(found, run("fedavg", 3, (10, 30, 60)), atol=1e-5)


def test_flowers_median_takes_the_middle_hospital_and_keeps_whole_numbers_whole() -> None:
    federation = Federation(hospitals(), {"strategy": "flower:FedMedian"}, network=normalised())
    updates = [
        federation.update(site, federation.model, {}).parameters["0.weight"] for site in hospitals()
    ]
    found = federation.run(1).model
    assert torch.allclose(found["0.weight"], torch.stack(updates).median(0).values)
    assert found["1.num_batches_tracked"].dtype == torch.int64
    assert int(found["1.num_batches_tracked"]) == 8
