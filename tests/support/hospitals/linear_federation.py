"""Hospitals with a linear model each, and a strategy that trains them without messages."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.training.local import train_locally
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.objectives.registry import build_objective, personal_model
from wardround.client.training.optimisers import build_optimiser
from wardround.client.training.schedule import SchedulePosition
from wardround.common.messages.replies import SiteUpdate
from wardround.common.models.sharing import RECEIVED_LOSS, layout_of
from wardround.common.parameters.schema import Parameters, read_parameters, write_parameters
from wardround.common.study.plans.strategy import StrategyPlan, plan_from
from wardround.common.study.sections.federation import FederationSection
from wardround.common.study.sections.training import TrainingSection
from wardround.server.strategies.composed import ComposedStrategy, Setting, site_weight
from wardround.server.strategies.flower_strategy import StockStrategy
from wardround.server.strategies.strategy import Strategy


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


def two_layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))


def normalised() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))


def descend(site: Hospital, weight: Tensor, steps: int, pull: float = 0.0) -> Tensor:
    """Return a weight after plain gradient descent on one hospital's loss."""
    received = weight.clone()
    for _ in range(steps):
        residual = site.inputs @ weight - site.targets
        gradient = site.inputs.T @ residual / len(residual) + pull * (weight - received)
        weight = weight - 0.05 * gradient
    return weight
