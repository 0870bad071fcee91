"""A site at work on one study: its cohorts stay loaded between the messages of a run."""

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import wardround
from wardround.client.data.batch import Batch
from wardround.client.data.cohort import Cohort, open_cohorts
from wardround.client.device import choose_device
from wardround.client.site import Site
from wardround.client.training.batches import draw_batches, steps_a_round
from wardround.client.training.evaluation import evaluate
from wardround.client.training.local import LocalWork, Loss, Span, train_locally
from wardround.client.training.losses import build_loss
from wardround.client.training.optimisers import build_optimiser
from wardround.common.errors import RunError
from wardround.common.metrics import MetricSums
from wardround.common.networks import build_network
from wardround.common.orders import Order
from wardround.common.parameters import read_parameters, write_parameters
from wardround.common.seeds import derive_seed, generator_for
from wardround.common.study import Study
from wardround.common.update import Introduction, SiteEvaluation, SiteUpdate


@dataclass(frozen=True, slots=True)
class Workbench:
    """What all sites of one process share: a network of the study, on a device."""

    study: Study
    device: torch.device
    network: nn.Module

    @classmethod
    def build(cls, study: Study, device_name: str) -> "Workbench":
        """Build the study's network on a device."""
        device = choose_device(device_name)
        network = build_network(study, study.federation.seed).to(device)
        return cls(study, device, network)


class SiteSession:
    """One site's answers to one study's orders."""

    def __init__(self, site: Site, bench: Workbench) -> None:
        self.site = site
        self.bench = bench
        self.cohorts = open_cohorts(site, bench.study)
        self._optimiser_state: dict[str, Any] | None = None

    @cached_property
    def loss(self) -> Loss:
        """The study's loss, with this site's class weights."""
        return build_loss(self.bench.study, self.cohorts.train.class_counts(), self.bench.device)

    def introduce(self, alone: bool = False) -> Introduction:
        """Load the data, so that what is wrong with it is said before the first round.

        Args:
            alone: Whether this is a baseline, whose test patients nobody asks it for.
        """
        self.cohorts.train.prepare()
        self.cohorts.validation.prepare()
        if not alone:
            self.cohorts.test.prepare()
        return Introduction(
            self.site.name,
            wardround.__version__,
            self.bench.study.digest,
            len(self.cohorts.train),
            tuple(self.cohorts.notes),
        )

    def train(self, order: Order, alone: bool = False) -> SiteUpdate:
        """Evaluate the received model on the validation patients, then train it.

        Args:
            alone: Whether the site trains without others (a baseline): its optimiser then keeps
                its momentum from round to round, as it would in an ordinary training.
        """
        started = time.perf_counter()
        self._check(order)
        write_parameters(self.bench.network, order.parameters)
        validation = self.cohorts.validation
        metrics = self._evaluate(validation, surfaces=False) if len(validation) else None
        work = self._train(order.round, alone)
        return SiteUpdate(
            site=self.site.name,
            digest=order.digest,
            round=order.round,
            attempt=order.attempt,
            parameters=read_parameters(self.bench.network),
            examinations=len(self.cohorts.train),
            updates=work.updates,
            seconds=time.perf_counter() - started,
            training_loss=work.mean_loss,
            metrics=metrics,
        )

    def evaluate(self, order: Order) -> SiteEvaluation:
        """Evaluate the received model on the patients of a split."""
        started = time.perf_counter()
        self._check(order)
        write_parameters(self.bench.network, order.parameters)
        cohort = self.cohorts.test if order.split == "test" else self.cohorts.validation
        metrics = self._evaluate(cohort, order.surfaces) if len(cohort) else None
        seconds = time.perf_counter() - started
        return SiteEvaluation(self.site.name, order.digest, order.round, metrics, seconds)

    def _check(self, order: Order) -> None:
        if order.digest != self.bench.study.digest:
            msg = (
                f"the order is for study {order.digest[:12]}, this site works on "
                f"{self.bench.study.digest[:12]}: submit the study again."
            )
            raise RunError(msg)

    def _evaluate(self, cohort: Cohort, surfaces: bool) -> MetricSums:
        return evaluate(
            self.bench.network, cohort, self.bench.study, self.bench.device, self.loss, surfaces
        )

    def _train(self, number: int, alone: bool) -> LocalWork:
        study, device, cohort = self.bench.study, self.bench.device, self.cohorts.train
        key = (study.federation.seed, self.site.name, number)
        drawing, augmenting = generator_for(*key, "batches"), generator_for(*key, "augmentation")
        optimiser = build_optimiser(self.bench.network, study.training)
        if alone and number > 1 and self._optimiser_state is not None:
            optimiser.load_state_dict(self._optimiser_state)

        def to_batch(indices: Tensor) -> Batch:
            return cohort.batch(indices, augmenting, device)

        batches = map(to_batch, draw_batches(cohort.targets, study.training, drawing))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(derive_seed(*key, "dropout"))
            work = train_locally(
                self.bench.network,
                batches,
                self.loss,
                optimiser,
                study.training,
                Span.of_round(
                    number,
                    study.federation.rounds,
                    steps_a_round(len(cohort), study.training),
                ),
            )
        if alone:
            self._optimiser_state = optimiser.state_dict()
        return work
