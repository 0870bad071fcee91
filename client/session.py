"""A site at work on one study: its cohorts stay loaded between the messages of a run."""

import time
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import wardround
from wardround.client.data.batch import Batch
from wardround.client.data.cohort import Cohort, open_cohorts
from wardround.client.evaluation.evaluate import evaluate
from wardround.client.model_context import PERSONAL, Workbench
from wardround.client.site.folder import Site
from wardround.client.site.state import SiteState
from wardround.client.training.batches import draw_batches, steps_a_round
from wardround.client.training.local import LocalWork, train_locally
from wardround.client.training.losses import build_loss
from wardround.client.training.objectives.base import LocalStart, Loss, Objective, prefixed, under
from wardround.client.training.objectives.registry import build_objective, personal_model
from wardround.client.training.optimisers import build_optimiser
from wardround.client.training.schedule import Span
from wardround.client.training.time_limit import UNLIMITED, TimeLimit
from wardround.common.errors import RunError
from wardround.common.messages.instructions import Order
from wardround.common.messages.replies import Introduction, SiteEvaluation, SiteUpdate
from wardround.common.metrics.summary import MetricSums
from wardround.common.models.sharing import RECEIVED_LOSS
from wardround.common.parameters.compression import CompressionOptions, compress, update_of
from wardround.common.parameters.parameters import Parameters, read_parameters, write_parameters
from wardround.common.runtime.seeds import derive_seed, generator_for, seed_dropout

# Before a parameter's name, in what a site keeps: what a compressed update left out, which it adds
# to its next one.
_RESIDUAL = "residual/"


class SiteSession:
    """One site's answers to one study's orders."""

    def __init__(self, site: Site, bench: Workbench) -> None:
        self.site = site
        self.bench = bench
        self.cohorts = open_cohorts(site, bench.study)
        self._optimiser_state: dict[str, dict[str, Any]] = {}  # of a baseline, by its run

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
            self.bench.fingerprint,
        )

    def train(self, order: Order, alone: bool = False, limit: TimeLimit = UNLIMITED) -> SiteUpdate:
        """Evaluate the received model on the validation patients, then train it.

        In a private study nothing is evaluated, and every training is another draw of the noise:
        who calls this pays for it first.

        Args:
            alone: Whether the site trains without others (a baseline): its optimiser then keeps
                its momentum from round to round, as it would in an ordinary training.
            limit: Until when it has to be over.

        Raises:
            OvertimeError: It was not.
        """
        started = time.perf_counter()
        self._check(order)
        start = replace(self._start(order), limit=limit)
        private = self.bench.privacy is not None
        metrics = self._validate(start) if order.validate and not private else None
        write_parameters(self.bench.network, start.parameters)
        extras = self._received_loss()
        objective = build_objective(start)
        if private:
            work = self._work_privately(start, objective)
        else:
            work = self._work(start, objective, order, alone)
        trained = read_parameters(self.bench.network)
        if objective is not None:
            extras.update(objective.extras())
        shared = self.bench.layout.shared_part(trained)
        sent, residual = self._compressed(shared, order.parameters, start.memory)
        self._remember(order, trained, objective, residual)
        return SiteUpdate(
            site=self.site.name,
            digest=order.digest,
            round=order.round,
            attempt=order.attempt,
            parameters=sent,
            examinations=len(self.cohorts.train),
            updates=work.updates,
            seconds=time.perf_counter() - started,
            training_loss=work.mean_loss,
            metrics=metrics,
            extras=extras,
            run=order.run,
        )

    def evaluate(self, order: Order) -> SiteEvaluation:
        """Evaluate the received model on the patients of a split.

        Where the strategy gives each site a model of its own, it is that model, as it was after
        the order's round; a strategy that fine-tunes does so before the test.
        """
        started = time.perf_counter()
        self._check(order)
        bench, model = self.bench, self.bench.on_base(order.parameters)
        if order.personal:
            model = bench.own_model(self._state(order), order.round, model)
        write_parameters(bench.network, model)
        if order.personal and order.split == "test" and self.bench.plan.objective == "fine-tune":
            self._fine_tune(order)
        cohort = self.cohorts.test if order.split == "test" else self.cohorts.validation
        metrics = self._evaluate(cohort, order.surfaces) if len(cohort) else None
        seconds = time.perf_counter() - started
        return SiteEvaluation(
            self.site.name, order.digest, order.round, metrics, seconds, order.run
        )

    def _state(self, order: Order) -> SiteState:
        return SiteState(self.site.state_folder, order.digest, order.run)

    def _start(self, order: Order) -> LocalStart:
        study, bench = self.bench.study, self.bench
        memory = self._state(order).after(order.round - 1) if bench.remembering else {}
        plan = bench.privacy
        steps = plan.steps if plan else steps_a_round(len(self.cohorts.train), study.training)
        return LocalStart(
            network=bench.network,
            parameters=bench.completed(order.parameters, memory),
            extras=order.extras,
            memory=memory,
            plan=bench.plan,
            layout=bench.layout,
            training=study.training,
            span=Span.of_round(order.round, study.federation.rounds, steps),
            loss=self.loss,
        )

    def _compressed(
        self, shared: Parameters, received: Parameters, memory: Parameters
    ) -> tuple[Parameters, Parameters]:
        """Return what travels, and what it leaves out; the model itself if nothing is saved."""
        federation = self.bench.study.federation
        if federation.compression == "none":
            return shared, {}
        options = CompressionOptions(kept_fraction=federation.kept_fraction)
        change, before = update_of(shared, received), under(_RESIDUAL, memory)
        return compress(change, federation.compression, options, before or None)

    def _remember(
        self,
        order: Order,
        trained: Parameters,
        objective: Objective | None,
        residual: Parameters,
    ) -> None:
        if not self.bench.remembering:
            return
        memory = prefixed(PERSONAL, self.bench.layout.personal_part(trained))
        memory.update(prefixed(_RESIDUAL, residual))
        if objective is not None:
            memory.update(objective.memory())
        self._state(order).keep(order.round, memory, order.kept_round)

    def _validate(self, start: LocalStart) -> MetricSums | None:
        if not len(self.cohorts.validation):
            return None
        model = personal_model(start.parameters, start.memory, start.plan)
        write_parameters(start.network, model)
        return self._evaluate(self.cohorts.validation, surfaces=False)

    def _received_loss(self) -> Parameters:
        """Return the received model's loss on the training patients, where it is asked for."""
        if self.bench.plan.combination != "fair-mean":
            return {}
        sums = self._evaluate(self.cohorts.train, surfaces=False)
        mean = sums.loss / max(sums.examinations, 1)
        return {RECEIVED_LOSS: torch.tensor(mean, dtype=torch.float64)}

    def _fine_tune(self, order: Order) -> None:
        """Train the received model on for this site alone, at the full learning rate."""
        training, start = self.bench.study.training, self._start(order)
        chosen = self.bench.plan.options.finetune_steps
        if chosen is not None:
            training = training.model_copy(update={"local_steps": chosen, "local_epochs": None})
        steps = steps_a_round(len(self.cohorts.train), training)
        span = Span(training.warmup, training.warmup, steps)
        start = replace(start, training=training, span=span)
        self._work(start, None, replace(order, round=order.round + 1), alone=False)

    def _check(self, order: Order) -> None:
        """Refuse what is not this site's study; let go what the server did not count."""
        if order.digest != self.bench.study.digest:
            msg = (
                f"the order is for study {order.digest[:12]}, this site works on "
                f"{self.bench.study.digest[:12]}: submit the study again."
            )
            raise RunError(msg)
        if self.bench.remembering:
            self._state(order).settle(order.counted_round)

    def _evaluate(self, cohort: Cohort, surfaces: bool) -> MetricSums:
        return evaluate(
            self.bench.network, cohort, self.bench.study, self.bench.device, self.loss, surfaces
        )

    def _work_privately(self, start: LocalStart, objective: Objective | None) -> LocalWork:
        optimiser = build_optimiser(start.network, start.training)
        return self.bench.train_privately(start, self.cohorts.train, optimiser, objective)

    def _work(
        self, start: LocalStart, objective: Objective | None, order: Order, alone: bool
    ) -> LocalWork:
        device, cohort = self.bench.device, self.cohorts.train
        key = (self.bench.study.federation.seed, self.site.name, order.round)
        drawing, augmenting = generator_for(*key, "batches"), generator_for(*key, "augmentation")
        optimiser = build_optimiser(start.network, start.training)
        if alone and order.run in self._optimiser_state:
            optimiser.load_state_dict(self._optimiser_state[order.run])

        def to_batch(indices: Tensor) -> Batch:
            return cohort.batch(indices, augmenting, device)

        batches = map(to_batch, draw_batches(cohort.targets, start.training, drawing))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seed_dropout(derive_seed(*key, "dropout"), device)
            work = train_locally(start, batches, optimiser, objective)
        if alone:
            self._optimiser_state = {order.run: optimiser.state_dict()}
        return work
