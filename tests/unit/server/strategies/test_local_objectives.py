"""What a strategy asks of a site beside the loss, held to its paper."""

import pytest
import torch
from tests.support.hospitals.linear_federation import (
    Federation,
    best_weight,
    error,
    hospitals,
    run,
    squared,
    two_layers,
)
from torch import Tensor, nn

from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.objectives.registry import build_objective
from wardround.client.training.schedule import SchedulePosition
from wardround.common.models.sharing import CONTROL, layout_of
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import Parameters, read_parameters, under
from wardround.common.study.plans.strategy import plan_from
from wardround.common.study.sections.federation import FederationSection
from wardround.common.study.sections.training import TrainingSection


def test_fedprox_without_weight_is_fedavg_bit_for_bit() -> None:
    assert torch.equal(run("fedprox", 3, proximal_weight=0.0), run("fedavg", 3))


def test_fedprox_stays_the_nearer_to_the_received_model_the_larger_its_weight() -> None:
    lengths = [float(run("fedprox", proximal_weight=mu).norm()) for mu in (0.0, 0.1, 1.0, 10.0)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < lengths[0] / 3


def test_fedavg_settles_beside_the_pooled_optimum_where_hospitals_differ() -> None:
    assert error(run("fedavg", 100), best_weight(hospitals())) > 0.01


@pytest.mark.parametrize("sizes", [(20, 20, 20), (10, 20, 60)])
def test_scaffold_settles_at_the_pooled_optimum(sizes: tuple[int, ...]) -> None:
    assert error(run("scaffold", 100, sizes), best_weight(hospitals(sizes))) < 1e-4


@pytest.mark.parametrize("sizes", [(20, 20, 20), (10, 20, 60)])
def test_feddyn_settles_at_the_pooled_optimum(sizes: tuple[int, ...]) -> None:
    found = run("feddyn", 100, sizes, dynamic_weight=1.0)
    assert error(found, best_weight(hospitals(sizes))) < 1e-3


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("sizes", [(20, 20, 20), (10, 20, 60)])
def test_the_hospitals_control_variates_mean_the_servers(
    sizes: tuple[int, ...], momentum: float
) -> None:
    training = {"learning_rate": 0.01, "momentum": momentum}
    federation = Federation(hospitals(sizes), {"strategy": "scaffold"}, training).run(5)
    own = [under(CONTROL, site.memory)["weight"] for site in federation.sites]
    shares = torch.tensor(sizes) / sum(sizes)
    mean = sum(c * share for c, share in zip(own, shares, strict=True))
    assert torch.allclose(mean, federation.strategy.auxiliary()[CONTROL + "weight"], atol=1e-5)


def test_a_control_variate_is_the_mean_gradient_of_the_round() -> None:
    site = hospitals((20,), steps=1)[0]
    federation = Federation([site], {"strategy": "scaffold"}, {"momentum": 0.5}).run(1)
    gradient = -(site.inputs * site.targets.unsqueeze(1)).mean(0)  # of the loss at weight 0
    assert torch.allclose(under(CONTROL, site.memory)["weight"][0], gradient, atol=1e-6)
    assert torch.allclose(federation.weight, -0.05 * gradient, atol=1e-6)


def test_a_round_at_learning_rate_zero_teaches_scaffold_nothing_and_divides_nothing() -> None:
    training = {"warmup": 1.0}  # whose first step goes at rate 0
    federation = Federation(hospitals((20,), steps=1), {"strategy": "scaffold"}, training).run(1)
    assert torch.equal(under(CONTROL, federation.sites[0].memory)["weight"], torch.zeros(1, 2))
    assert torch.isfinite(federation.weight).all()


def test_moon_is_fedavg_in_the_first_round_and_holds_the_features_back_after_it() -> None:
    def changes(weight: float) -> list[Parameters]:
        chosen = {"strategy": "moon", "options": {"contrastive_weight": weight}}
        federation = Federation(hospitals(steps=3), chosen, network=two_layers())
        return [federation.run(1).model, federation.run(1).model]

    (first, second), (plain_first, plain_second) = changes(5.0), changes(0.0)
    assert digest(first) == digest(plain_first)
    assert digest(second) != digest(plain_second)


def test_the_contrastive_term_is_the_papers() -> None:
    network = two_layers()
    previous = {name: tensor + 0.3 for name, tensor in read_parameters(network).items()}
    site = hospitals((6,))[0]
    chosen = FederationSection.model_validate(
        {"strategy": "moon", "options": {"contrastive_weight": 2.0, "contrastive_temperature": 0.7}}
    )
    plan = plan_from(chosen)
    start = LocalStart(
        network,
        read_parameters(network),
        {},
        {f"previous/{name}": tensor for name, tensor in previous.items()},
        plan,
        layout_of(network, plan),
        TrainingSection(),
        SchedulePosition(0, 1, 1),
        squared,
    )
    objective = build_objective(start)
    assert objective is not None
    with torch.no_grad():
        network[0].weight.mul_(1.5)  # type: ignore[union-attr, operator]
    network(site.inputs)
    found = objective.adjust(torch.tensor(1.0), site.batch)

    def features(values: Parameters) -> Tensor:
        return torch.tanh(site.inputs @ values["0.weight"].T + values["0.bias"])

    own = features(read_parameters(network))
    assert found.requires_grad
    near, far = (
        nn.functional.cosine_similarity(own, features(other)).div(0.7).exp()
        for other in (start.parameters, previous)
    )
    assert float(found.detach()) == pytest.approx(
        1 + 2 * float(-(near / (near + far)).log().mean()), 1e-5
    )
