"""Each strategy differs from FedAvg in the way its paper says, on problems solved by hand.

The hospitals fit least squares by full-batch gradient descent, so their optima and the pooled one
come from ``torch.linalg.lstsq`` and not from any strategy.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.training.local import train_locally
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.objectives.registry import build_objective, personal_model
from wardround.client.training.optimisers import build_optimiser
from wardround.client.training.schedule import SchedulePosition
from wardround.common.flower.local import claim_identity
from wardround.common.messages.replies import SiteUpdate
from wardround.common.models.sharing import CONTROL, RECEIVED_LOSS, layout_of
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import Parameters, read_parameters, under, write_parameters
from wardround.common.study.plans.strategy import PRESETS, StrategyPlan, plan_from
from wardround.common.study.sections import FederationSection, TrainingSection
from wardround.server.strategies.composed import ComposedStrategy, Setting, site_weight
from wardround.server.strategies.flower_strategy import StockStrategy
from wardround.server.strategies.strategy import Strategy


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Claim a run, which Flower's messages ask for, and keep tiny sums on one thread."""
    claim_identity(1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs.squeeze(1) - targets) ** 2).mean() / 2


@dataclass
class Hospital:
    """Examples, the steps it makes a round, and what it keeps."""

    inputs: Tensor
    targets: Tensor
    steps: int = 4
    memory: Parameters = field(default_factory=dict)
    personal: Parameters = field(default_factory=dict)

    @property
    def batch(self) -> Batch:
        return Batch(None, self.inputs, self.targets)


def hospitals(sizes: tuple[int, ...] = (20, 20, 20), steps: int = 8) -> list[Hospital]:
    """Return hospitals whose inputs and whose truths differ."""
    made = []
    for number, size in enumerate(sizes):
        generator = torch.Generator().manual_seed(number)
        inputs = torch.randn(size, 2, generator=generator) * torch.tensor([1.0, 0.5 + number])
        truth = torch.tensor([1.0 + 2 * number, -1.0 - number])
        made.append(Hospital(inputs, inputs @ truth, steps))
    return made


def best_weight(parts: list[Hospital]) -> Tensor:
    """Return the optimum of the pooled examples."""
    inputs = torch.cat([part.inputs for part in parts]).double()
    targets = torch.cat([part.targets for part in parts]).double()
    return torch.linalg.lstsq(inputs, targets.unsqueeze(1)).solution.squeeze(1).float()


class Federation:
    """The two halves of a strategy over a network, without messages."""

    def __init__(
        self,
        sites: list[Hospital],
        federation: dict[str, Any],
        training: dict[str, Any] | None = None,
        network: nn.Module | None = None,
    ) -> None:
        self.sites = sites
        self.network = nn.Linear(2, 1, bias=False) if network is None else network
        if network is None:
            nn.init.zeros_(self.network.weight)
        self.plan: StrategyPlan = plan_from(FederationSection.model_validate(federation))
        chosen = {"optimiser": "sgd", "learning_rate": 0.05, **(training or {})}
        self.training = TrainingSection.model_validate(chosen)
        self.layout = layout_of(self.network, self.plan)
        self.strategy = self.new_strategy()
        self.rounds = 0
        self.initial = read_parameters(self.network)
        self.model = self.layout.shared_part(self.initial)

    def new_strategy(self) -> Strategy:
        weights = [site_weight(len(site.targets), self.plan) for site in self.sites]
        if self.plan.aggregation.startswith("flower:"):
            return StockStrategy(self.plan, self.layout.trainable, len(self.sites))
        setting = Setting(self.plan, self.training, self.layout, sum(weights))
        return ComposedStrategy(setting)

    def run(self, rounds: int) -> "Federation":
        for _ in range(rounds):
            self.rounds += 1
            self.strategy.begin(self.rounds, self.model)
            for cohort in self.strategy.cohorts(self.sites):
                model, auxiliary = self.strategy.model(), self.strategy.auxiliary()
                for site in cohort:
                    self.strategy.accumulate(self.update(site, model, auxiliary))
            self.model = self.strategy.finish()
        return self

    def update(self, site: Hospital, model: Parameters, auxiliary: Parameters) -> SiteUpdate:
        whole = {**self.initial, **site.personal, **model}
        write_parameters(self.network, whole)
        sent: Parameters = {}
        if self.plan.aggregation == "fair-mean":
            with torch.no_grad():
                received = squared(self.network(site.inputs), site.targets)
            sent[RECEIVED_LOSS] = received.double()
        position = SchedulePosition(0.0, 1.0, site.steps)
        start = LocalStart(
            self.network,
            whole,
            auxiliary,
            site.memory,
            self.plan,
            self.layout,
            self.training,
            position,
            squared,
        )
        objective = build_objective(start)
        optimiser = build_optimiser(self.network, self.training)
        work = train_locally(start, [site.batch] * site.steps, optimiser, objective)
        trained = read_parameters(self.network)
        if objective is not None:
            sent.update(objective.auxiliary())
            site.memory = objective.memory()
        site.personal = self.layout.personal_part(trained)
        shared = self.layout.shared_part(trained)
        count = len(site.targets)
        return SiteUpdate(
            "s", "d", self.rounds, 0, shared, count, work.updates, 0, 0, auxiliary=sent
        )

    def own(self, site: Hospital) -> Parameters:
        whole = {**self.initial, **site.personal, **self.model}
        return personal_model(whole, site.memory, self.plan)

    @property
    def weight(self) -> Tensor:
        return self.model["weight"].squeeze(0)


def run(name: str, rounds: int = 1, sizes: tuple[int, ...] = (20, 20, 20), **more: Any) -> Tensor:
    options = {"options": more} if more else {}
    return Federation(hospitals(sizes), {"strategy": name, **options}).run(rounds).weight


def error(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


# --- The local objective ---------------------------------------------------------
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


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


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


# --- What stays at the site ------------------------------------------------------
def normalised() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))


def test_the_normalisations_of_fedbn_never_travel_and_differ_between_hospitals() -> None:
    federation = Federation(hospitals(), {"strategy": "fedbn"}, network=normalised()).run(2)
    assert set(federation.model) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    first, second = (federation.own(site) for site in federation.sites[:2])
    assert not torch.equal(first["1.running_mean"], second["1.running_mean"])
    assert not torch.equal(first["1.weight"], second["1.weight"])
    assert torch.equal(first["0.weight"], second["0.weight"])
    assert int(first["1.num_batches_tracked"]) == 16


@pytest.mark.parametrize("name", ["fedper", "fedrep"])
def test_heads_never_travel_and_differ_between_hospitals(name: str) -> None:
    federation = Federation(hospitals(), {"strategy": name}, network=two_layers()).run(2)
    assert set(federation.model) == {"0.weight", "0.bias"}
    first, second = (federation.own(site) for site in federation.sites[:2])
    assert not torch.equal(first["2.weight"], second["2.weight"])


def test_fedrep_trains_the_head_alone_and_then_the_body_alone() -> None:
    site = hospitals((20,), steps=4)[0]
    federation = Federation([site], {"strategy": "fedrep"}, network=two_layers()).run(1)
    inputs, targets = site.inputs, site.targets
    network = two_layers()
    for part in (network[2], network[2], network[0], network[0]):  # type: ignore[index]
        gradients = torch.autograd.grad(squared(network(inputs), targets), part.parameters())
        with torch.no_grad():
            for weight, gradient in zip(part.parameters(), gradients, strict=True):
                weight -= 0.05 * gradient
    expected = read_parameters(network)
    for name, tensor in federation.own(site).items():
        assert torch.allclose(tensor, expected[name], atol=1e-6)


def descend(site: Hospital, weight: Tensor, steps: int, pull: float = 0.0) -> Tensor:
    """Return a weight after plain gradient descent on one hospital's loss."""
    received = weight.clone()
    for _ in range(steps):
        residual = site.inputs @ weight - site.targets
        gradient = site.inputs.T @ residual / len(residual) + pull * (weight - received)
        weight = weight - 0.05 * gradient
    return weight


def test_ditto_without_weight_trains_each_hospital_alone_and_shares_as_fedavg() -> None:
    chosen = {"strategy": "ditto", "options": {"personal_weight": 0.0}}
    federation = Federation(hospitals(), chosen).run(3)
    assert torch.equal(federation.weight, run("fedavg", 3))
    for site in federation.sites:
        standalone = descend(site, torch.zeros(2), 3 * site.steps)
        assert torch.allclose(federation.own(site)["weight"][0], standalone, atol=1e-5)


def test_dittos_personal_models_are_the_nearer_to_the_shared_one_the_larger_its_weight() -> None:
    distances = []
    for weight in (0.0, 0.5, 5.0):
        chosen = {"strategy": "ditto", "options": {"personal_weight": weight}}
        federation = Federation(hospitals(), chosen).run(20)
        own = [federation.own(site)["weight"][0] for site in federation.sites]
        distances.append(sum(float((one - federation.weight).norm()) for one in own))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < distances[0] / 3


def test_apfl_goes_from_the_shared_model_to_that_of_each_hospital_alone() -> None:
    def own(alpha: float) -> tuple[Federation, list[Tensor]]:
        chosen = {"strategy": "apfl", "options": {"mixture": alpha}}
        federation = Federation(hospitals(), chosen).run(2)
        return federation, [federation.own(site)["weight"][0] for site in federation.sites]

    federation, shared = own(0.0)
    assert torch.equal(federation.weight, run("fedavg", 2))
    assert all(torch.equal(one, federation.weight) for one in shared)
    federation, personal = own(1.0)
    for site, one in zip(federation.sites, personal, strict=True):
        assert torch.allclose(one, descend(site, torch.zeros(2), 2 * site.steps), atol=1e-5)


def test_apfls_personal_part_follows_the_gradient_of_the_mixture() -> None:
    site, alpha = hospitals((20,), steps=1)[0], 0.25
    federation = Federation([site], {"strategy": "apfl", "options": {"mixture": alpha}}).run(1)
    gradient = -(site.inputs * site.targets.unsqueeze(1)).mean(0)
    personal, shared = -0.05 * alpha * gradient, -0.05 * gradient
    expected = alpha * personal + (1 - alpha) * shared
    assert torch.allclose(federation.own(site)["weight"][0], expected, atol=1e-6)


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
    from wardround.server.strategies.aggregation.means import effective_steps

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
