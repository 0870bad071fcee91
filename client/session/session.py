"""A site at work on one study: its cohorts stay loaded between the messages of a run."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

import wardround
from wardround.client.data.batch import Batch
from wardround.client.data.cohort import Cohort
from wardround.client.data.cohorts import Cohorts
from wardround.client.data.manifest.label_words import label_words
from wardround.client.session.batches import batches_of_round
from wardround.client.session.measurement import (
    measured_sums,
    noised_sums,
    received_loss,
    says_metrics,
)
from wardround.client.session.memory import compressed, memory_before, remember, state_of
from wardround.client.session.model_context import ModelContext
from wardround.client.session.site_data import SiteData
from wardround.client.session.trainer import Trainer
from wardround.client.site.folder import Site
from wardround.client.training.local import LocalWork
from wardround.client.training.losses.registry import build_loss
from wardround.client.training.objectives.base import (
    LocalStart,
    Loss,
    Objective,
    ParentKnowledge,
)
from wardround.client.training.objectives.registry import build_objective, personal_model
from wardround.client.training.optimisers import build_optimiser
from wardround.client.training.schedule import (
    UNLIMITED,
    SchedulePosition,
    TimeLimit,
    few_steps_note,
    names_memory_remedy,
    steps_a_round,
)
from wardround.common.errors import RunError
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.replies import SiteEvaluation, SiteInfo, SiteUpdate
from wardround.common.metrics.sums import MetricSums
from wardround.common.parameters.schema import Parameters, read_parameters, write_parameters
from wardround.common.study.plans.patient_privacy import EvaluationPlan

if TYPE_CHECKING:
    from wardround.client.session.ahead import AheadWork


class SiteSession:
    """One site's answers to one study's orders.

    Raises:
        DataError: The site's manifest cannot be used.
    """

    def __init__(self, site: Site, context: ModelContext) -> None:
        self.context = context
        self._data = SiteData(site, context.study)
        self._trainer = Trainer(context)
        self._ahead: AheadWork | None = None

    @property
    def site(self) -> Site:
        """The site, as its folder was when its data were read."""
        return self._data.site

    @property
    def cohorts(self) -> Cohorts:
        """The site's patients, as the manifest and the images were when they were read.

        Raises:
            DataError: They were let go, and cannot be read anew.
        """
        return self._data.cohorts

    @cohorts.setter
    def cohorts(self, cohorts: Cohorts) -> None:
        self._data.cohorts = cohorts

    def has_stale_data(self, images: bool) -> bool:
        """Return whether the manifest or an image is no longer as it was when it was read.

        Args:
            images: Whether to look at each image, and not at the manifest alone.
        """
        return self._data.is_stale(images)

    def let_go(self) -> None:
        """Drop every copy of the data, in memory and on disk, and read the manifest anew.

        Where the manifest cannot be used, whoever asks for the patients next is told so.
        """
        self.__dict__.pop("loss", None)  # its weights are counts of the patients
        self.__dict__.pop("_parent", None)  # and this is of old ones
        self._data.let_go()

    @cached_property
    def loss(self) -> Loss:
        """The study's loss, with this site's class weights, of the classes it has annotated."""
        study, counts = self.context.study, self.cohorts.train.class_counts()
        annotated = label_words(self.site, study).annotated
        return build_loss(study, counts, self.context.device, annotated)

    @names_memory_remedy
    def describe(self, standalone: bool = False) -> SiteInfo:
        """Load the data, so that what is wrong with it is said before the first round.

        Args:
            standalone: Whether this is a baseline, whose test patients nobody asks it for.
        """
        self.cohorts.train.prepare()
        self.cohorts.train.require_batches()
        self.cohorts.validation.prepare()
        if not standalone:
            self.cohorts.test.prepare()
        return SiteInfo(
            self.site.name,
            wardround.__version__,
            self.context.study.digest,
            len(self.cohorts.train),
            (
                *self.cohorts.notes,
                *few_steps_note(len(self.cohorts.train), self.context.study.training),
            ),
            self.context.fingerprint,
        )

    @names_memory_remedy
    def train(
        self, instruction: Instruction, standalone: bool = False, limit: TimeLimit = UNLIMITED
    ) -> SiteUpdate:
        """Evaluate the received model on the validation patients, then train it.

        In a private study nothing is evaluated, and every training is another draw of the noise:
        who calls this pays for it first.

        Args:
            standalone: Whether the site trains without others (a baseline): its optimiser then
                keeps its momentum from round to round, as it would in an ordinary training.
            limit: Until when it has to be over.

        Raises:
            OvertimeError: It was not.
        """
        started = time.perf_counter()
        self._check(instruction)
        start = replace(self._start(instruction), limit=limit)
        metrics = self._validate(start) if says_metrics(self.context.study, instruction) else None
        write_parameters(self.context.network, start.parameters)
        if self.context.privacy is not None and self.context.privacy.distributed:
            return self._summed(start, instruction)
        auxiliary = received_loss(self.context, self.cohorts.train, self.loss)
        objective = build_objective(start)
        if self.context.privacy is not None:
            work = self._trainer.train_privately(self.site, start, self.cohorts.train, objective)
        else:
            ahead = self._taken_ahead(instruction, limit)
            work = ahead or self._work(start, objective, instruction, standalone)
        trained = read_parameters(self.context.network)
        if objective is not None:
            auxiliary.update(objective.auxiliary())
        shared = self.context.layout.shared_part(trained)
        sent, residual = compressed(self.context, shared, instruction.parameters, start.memory)
        if self.context.keeps_state:
            state = state_of(self.site, instruction)
            remember(self.context, state, instruction, trained, objective, residual)
        return SiteUpdate(
            site=self.site.name,
            digest=instruction.digest,
            round=instruction.round,
            attempt=instruction.attempt,
            parameters=sent,
            examinations=len(self.cohorts.train),
            updates=work.updates,
            seconds=time.perf_counter() - started + work.seconds_ahead,
            training_loss=work.mean_loss,
            metrics=metrics,
            auxiliary=auxiliary,
            run=instruction.run,
        )

    @names_memory_remedy
    def evaluate(self, instruction: Instruction) -> SiteEvaluation:
        """Evaluate the received model on the patients of a split.

        Where the strategy gives each site a model of its own, it is that model, as it was after
        the instruction's round; a strategy that fine-tunes does so before the test.
        """
        started = time.perf_counter()
        cohort = self.ready(instruction)
        metrics = self._evaluate(cohort, instruction.surfaces) if len(cohort) else None
        seconds = time.perf_counter() - started
        return SiteEvaluation(
            self.site.name, instruction.digest, instruction.round, metrics, seconds, instruction.run
        )

    def evaluate_privately(self, instruction: Instruction, plan: EvaluationPlan) -> SiteEvaluation:
        """Evaluate the received model on the patients of a split, as :meth:`evaluate`, with noise.

        Every call is another draw of the noise: who calls this pays for it first.
        """
        cohort = self.ready(instruction)
        metrics = noised_sums(self.context, cohort, self.loss, plan)
        return SiteEvaluation(
            self.site.name, instruction.digest, instruction.round, metrics, 0.0, instruction.run
        )

    @names_memory_remedy
    def make_steps(self, instruction: Instruction, steps: int) -> tuple[LocalWork, Parameters]:
        """Make a few steps of a round; return what they came to and the whole trained network.

        Nothing of it is kept. In a private study it is a draw of the noise like any other: what is
        returned does not leave, so nobody pays for it.
        """
        context = self.context
        training = context.study.training.model_copy(
            update={"local_steps": steps, "local_epochs": None}
        )
        start = replace(self._start(instruction), training=training)
        write_parameters(context.network, start.parameters)
        objective = build_objective(start)
        if context.privacy is not None:
            few = replace(context, privacy=replace(context.privacy, steps=steps))
            optimiser = build_optimiser(start.network, training)
            work = few.train_privately(
                start, self.cohorts.train, optimiser, objective, self._trainer.crew(self.site)
            )
        else:
            work = self._work(start, objective, instruction, standalone=False)
        return work, read_parameters(context.network)

    def begin(self, instruction: Instruction) -> tuple[LocalStart, Iterator[Batch]]:
        """Return where a training begins, and its batches: as :meth:`train` has them.

        In a simulation several sites are trained together before they are asked one by one.
        """
        self._check(instruction)
        start = self._start(instruction)
        return start, self._batches(start, instruction)

    def keep_ahead(self, work: "AheadWork") -> None:
        """Keep what a training that is still to be asked for came to; once, until it is."""
        self._ahead = work

    @property
    def steps(self) -> int:
        """How many steps a round has here."""
        plan = self.context.privacy
        if plan is not None:
            return plan.steps
        return steps_a_round(len(self.cohorts.train), self.context.study.training)

    def measured(self, instruction: Instruction) -> Cohort:
        """Return the patients that an evaluation is about."""
        return self.cohorts.test if instruction.split == "test" else self.cohorts.validation

    def ready(self, instruction: Instruction) -> Cohort:
        """Put the model that is to be evaluated into the network; return on whom."""
        self._check(instruction)
        context, model = self.context, self.context.on_base(instruction.parameters)
        if instruction.personal:
            model = context.own_model(state_of(self.site, instruction), instruction.round, model)
        write_parameters(context.network, model)
        if (
            instruction.personal
            and instruction.split == "test"
            and self.context.plan.objective == "fine-tune"
        ):
            self._fine_tune(instruction)
        return self.measured(instruction)

    def _start(self, instruction: Instruction) -> LocalStart:
        study, context = self.context.study, self.context
        memory = memory_before(context, self.site, instruction)
        return LocalStart(
            network=context.network,
            parameters=context.completed(instruction.parameters, memory),
            auxiliary=instruction.auxiliary,
            memory=memory,
            plan=context.plan,
            layout=context.layout,
            training=study.training,
            position=SchedulePosition.of_round(
                instruction.round, study.federation.rounds, self.steps
            ),
            loss=self.loss,
            parent=self._parent,
        )

    @cached_property
    def _parent(self) -> "ParentKnowledge | None":
        """What is held on to of the parent's model, where the study's objective asks for it."""
        held = self.context.study.continual
        if held is None or held.method not in ("ewc", "lwf"):
            return None
        from wardround.client.session.parent import know_parent

        return know_parent(self.context, self.cohorts.old, self.loss)

    def _validate(self, start: LocalStart) -> MetricSums | None:
        if not len(self.cohorts.validation):
            return None
        model = personal_model(start.parameters, start.memory, start.plan)
        write_parameters(start.network, model)
        return self._evaluate(self.cohorts.validation, surfaces=False)

    def _fine_tune(self, instruction: Instruction) -> None:
        """Train the received model on for this site alone, at the full learning rate."""
        training, start = self.context.study.training, self._start(instruction)
        chosen = self.context.plan.options.finetune_steps
        if chosen is not None:
            training = training.model_copy(update={"local_steps": chosen, "local_epochs": None})
        steps = steps_a_round(len(self.cohorts.train), training)
        position = SchedulePosition(training.warmup, training.warmup, steps)
        start = replace(start, training=training, position=position)
        self._work(start, None, replace(instruction, round=instruction.round + 1), standalone=False)

    def _check(self, instruction: Instruction) -> None:
        """Refuse what is not this site's study; let go what the server did not count."""
        if instruction.digest != self.context.study.digest:
            msg = (
                f"the order is for study {instruction.digest[:12]}, this site works on "
                f"{self.context.study.digest[:12]}: submit the study again."
            )
            raise RunError(msg)
        if self.context.keeps_state:
            state_of(self.site, instruction).settle(instruction.counted_round)

    def _evaluate(self, cohort: Cohort, surfaces: bool) -> MetricSums:
        return measured_sums(self.context, cohort, self.loss, surfaces)

    def _summed(self, start: LocalStart, instruction: Instruction) -> SiteUpdate:
        """Return an update by the mean gradient at a learning rate of 1, in double precision.

        It has no noise yet: the site's share of it is added where it is coded.
        """
        gradient = self._trainer.mean_gradient(self.site, start, self.cohorts.train)
        shared = {name: tensor.clone() for name, tensor in instruction.parameters.items()}
        for name, part in gradient.items():
            shared[name] = shared[name].double() - part
        return SiteUpdate(
            site=self.site.name,
            digest=instruction.digest,
            round=instruction.round,
            attempt=instruction.attempt,
            parameters=shared,
            examinations=1,
            updates=1,
            seconds=0.0,
            training_loss=math.nan,
            run=instruction.run,
        )

    def _work(
        self,
        start: LocalStart,
        objective: Objective | None,
        instruction: Instruction,
        standalone: bool,
    ) -> LocalWork:
        batches = self._batches(start, instruction)
        return self._trainer.train(self.site, start, batches, objective, instruction, standalone)

    def _batches(self, start: LocalStart, instruction: Instruction) -> Iterator[Batch]:
        cohort = self.cohorts.train
        return batches_of_round(self.site.name, self.context, cohort, start, instruction)

    def _taken_ahead(self, instruction: Instruction, limit: TimeLimit) -> LocalWork | None:
        """Put into the network what was trained ahead for an instruction, if anything was."""
        ahead, self._ahead = self._ahead, None
        fits = ahead is not None and limit == UNLIMITED
        if ahead is None or not fits or not ahead.is_for(instruction, self.cohorts.train):
            return None
        with torch.no_grad():
            for name, weight in self.context.network.named_parameters():
                if name in ahead.trained:
                    weight.copy_(ahead.trained[name])
        return ahead.work
