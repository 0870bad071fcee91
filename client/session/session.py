"""A site at work on one study: its cohorts stay loaded between the messages of a run."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.amp import GradScaler

import wardround
from wardround.client.data.batch import Batch, mixed
from wardround.client.data.cohort import Cohort, Cohorts, open_cohorts
from wardround.client.data.manifest.label_words import label_words
from wardround.client.data.reading.array_files import forget_arrays
from wardround.client.data.source_files import SourceFiles, lists_of, remove_outdated
from wardround.client.privacy.evaluation import measure_privately
from wardround.client.session.model_context import PERSONAL, ModelContext
from wardround.client.site.folder import Site, open_site
from wardround.client.site.state import SiteState
from wardround.client.training.evaluation import evaluate, without_tta
from wardround.client.training.local import LocalWork, loss_scaler, train_locally
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
    draw_batches,
    few_steps_note,
    names_memory_remedy,
    steps_a_round,
)
from wardround.common.errors import DataError, RunError
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.replies import SiteEvaluation, SiteInfo, SiteUpdate
from wardround.common.metrics.sums import MetricSums
from wardround.common.models.sharing import RECEIVED_LOSS
from wardround.common.parameters.compression import CompressionOptions, compress, update_of
from wardround.common.parameters.schema import (
    Parameters,
    prefixed,
    read_parameters,
    under,
    write_parameters,
)
from wardround.common.runtime.seeds import derive_seed, generator_for, seed_dropout
from wardround.common.study.plans.patient_privacy import EvaluationPlan
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from collections.abc import Callable

    from wardround.client.session.ahead import AheadWork
    from wardround.client.session.parallel.crew import Crew
    from wardround.client.training.adversarial import TrainingAttack

logger = logging.getLogger(__name__)
# Before a parameter's name, in what a site keeps: what a compressed update left out, which it adds
# to its next one.
_RESIDUAL = "residual/"


class SiteSession:
    """One site's answers to one study's orders."""

    def __init__(self, site: Site, context: ModelContext) -> None:
        self.site = site
        self.context = context
        self._optimiser_state: dict[str, dict[str, Any]] = {}  # of a baseline, by its run
        self._scalers: dict[str, GradScaler] = {}  # of the losses, by run
        self._ahead: AheadWork | None = None
        self._cohorts: Cohorts | None
        self._cohorts, self._files = self._open()

    @property
    def cohorts(self) -> Cohorts:
        """The site's patients, as the manifest and the images were when they were read.

        Raises:
            DataError: They were let go, and cannot be read anew.
        """
        cohorts = self._cohorts
        if cohorts is None:
            self.site = replace(open_site(self.site.folder), is_tolerant=self.site.is_tolerant)
            cohorts, self._files = self._open()
            self._cohorts = cohorts
        return cohorts

    @cohorts.setter
    def cohorts(self, cohorts: Cohorts) -> None:
        self._cohorts = cohorts

    def has_stale_data(self, images: bool) -> bool:
        """Return whether the manifest or an image is no longer as it was when it was read.

        Args:
            images: Whether to look at each image, and not at the manifest alone.
        """
        held = self._cohorts
        if held is None:
            return False
        return self._files.have_changed(images) or (images and held.prepared.is_lost)

    def let_go(self) -> None:
        """Drop every copy of the data, in memory and on disk, and read the manifest anew.

        Prepared images of this study's settings stay where their sources are as they were. Where
        the manifest cannot be used, whoever asks for the patients next is told so.
        """
        if self._cohorts is not None:
            remove_outdated(self.site, None, keep=self._cohorts.prepared.folder)
        self._cohorts = None
        self.__dict__.pop("loss", None)  # its weights are counts of the patients
        self.__dict__.pop("_parent", None)  # and this is of old ones
        forget_arrays()
        with suppress(DataError):
            _ = self.cohorts

    def _open(self) -> tuple[Cohorts, SourceFiles]:
        """Return the patients, and how their files lay before any was read."""
        files = SourceFiles(lists_of(self.site))
        cohorts = open_cohorts(self.site, self.context.study)
        files.add_images(cohorts.images)
        for note in cohorts.parting:
            logger.warning("%s", note)
        return cohorts, files

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
        metrics = self._validate(start) if self._says_metrics(instruction) else None
        write_parameters(self.context.network, start.parameters)
        if self.context.privacy is not None and self.context.privacy.distributed:
            return self._summed(start, instruction)
        auxiliary = self._received_loss()
        objective = build_objective(start)
        if self.context.privacy is not None:
            work = self._work_privately(start, objective)
        else:
            ahead = self._taken_ahead(instruction, limit)
            work = ahead or self._work(start, objective, instruction, standalone)
        trained = read_parameters(self.context.network)
        if objective is not None:
            auxiliary.update(objective.auxiliary())
        shared = self.context.layout.shared_part(trained)
        sent, residual = self._compressed(shared, instruction.parameters, start.memory)
        self._remember(instruction, trained, objective, residual)
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
        cohort, context = self.ready(instruction), self.context
        metrics = measure_privately(
            context.network, cohort, self._seen(cohort), context.device, self.loss, plan
        )
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
                start, self.cohorts.train, optimiser, objective, self._crew()
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
            model = context.own_model(self._state(instruction), instruction.round, model)
        write_parameters(context.network, model)
        if (
            instruction.personal
            and instruction.split == "test"
            and self.context.plan.objective == "fine-tune"
        ):
            self._fine_tune(instruction)
        return self.measured(instruction)

    def _says_metrics(self, instruction: Instruction) -> bool:
        """Return whether an update says how the received model does on validation patients."""
        leaves = what_leaves(self.context.study)
        return instruction.validate and leaves.round_metrics and not leaves.noised_metrics

    def _state(self, instruction: Instruction) -> SiteState:
        return SiteState(self.site.state_folder, instruction.digest, instruction.run)

    def _start(self, instruction: Instruction) -> LocalStart:
        study, context = self.context.study, self.context
        memory = (
            self._state(instruction).after(instruction.round - 1) if context.keeps_state else {}
        )
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

    def _compressed(
        self, shared: Parameters, received: Parameters, memory: Parameters
    ) -> tuple[Parameters, Parameters]:
        """Return what travels, and what it leaves out; the model itself if nothing is saved."""
        federation = self.context.study.federation
        if federation.compression == "none":
            return shared, {}
        options = CompressionOptions(kept_fraction=federation.kept_fraction)
        change, before = update_of(shared, received), under(_RESIDUAL, memory)
        return compress(change, federation.compression, options, before or None)

    def _remember(
        self,
        instruction: Instruction,
        trained: Parameters,
        objective: Objective | None,
        residual: Parameters,
    ) -> None:
        if not self.context.keeps_state:
            return
        memory = prefixed(PERSONAL, self.context.layout.personal_part(trained))
        memory.update(prefixed(_RESIDUAL, residual))
        if objective is not None:
            memory.update(objective.memory())
        self._state(instruction).keep(instruction.round, memory, instruction.kept_round)

    def _validate(self, start: LocalStart) -> MetricSums | None:
        if not len(self.cohorts.validation):
            return None
        model = personal_model(start.parameters, start.memory, start.plan)
        write_parameters(start.network, model)
        return self._evaluate(self.cohorts.validation, surfaces=False)

    def _received_loss(self) -> Parameters:
        """Return the received model's loss on the training patients, where it is asked for."""
        if self.context.plan.aggregation != "fair-mean":
            return {}
        sums = self._evaluate(self.cohorts.train, surfaces=False)
        mean = sums.loss / max(sums.examinations, 1)
        return {RECEIVED_LOSS: torch.tensor(mean, dtype=torch.float64)}

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
            self._state(instruction).settle(instruction.counted_round)

    def _evaluate(self, cohort: Cohort, surfaces: bool) -> MetricSums:
        return evaluate(
            self.context.network,
            cohort,
            self._seen(cohort),
            self.context.device,
            self.loss,
            surfaces,
        )

    def _seen(self, cohort: Cohort) -> Study:
        """Return the study by which a cohort is measured: only test images are mirrored."""
        study = self.context.study
        return study if cohort.split == "test" else without_tta(study)

    def _scaler(self, instruction: Instruction) -> GradScaler:
        """Return the scaler of a run's losses, which knows the scale of its last round."""
        if instruction.run not in self._scalers:
            scaler = loss_scaler(self.context.study.training, self.context.device)
            self._scalers = {instruction.run: scaler}
        return self._scalers[instruction.run]

    def _crew(self) -> "Crew | None":
        """Return the processes that train with this one, where the site has several devices."""
        if not self.site.settings.devices:
            return None
        from wardround.client.session.parallel.hiring import crew_for

        annotated = label_words(self.site, self.context.study).annotated
        devices, context = self.site.settings.devices, self.context
        return crew_for(context.study, context.network, context.device, devices, annotated)

    def _work_privately(self, start: LocalStart, objective: Objective | None) -> LocalWork:
        optimiser = build_optimiser(start.network, start.training)
        return self.context.train_privately(
            start, self.cohorts.train, optimiser, objective, self._crew()
        )

    def _summed(self, start: LocalStart, instruction: Instruction) -> SiteUpdate:
        """Return an update by the mean gradient at a learning rate of 1, in double precision.

        It has no noise yet: the site's share of it is added where it is coded.
        """
        gradient = self.context.mean_gradient(start, self.cohorts.train, self._crew())
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
        device = self.context.device
        key = (self.context.study.federation.seed, self.site.name, instruction.round)
        optimiser = build_optimiser(start.network, start.training)
        if standalone and instruction.run in self._optimiser_state:
            optimiser.load_state_dict(self._optimiser_state[instruction.run])
        batches = self._batches(start, instruction)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            seed_dropout(derive_seed(*key, "dropout"), device)
            crew = self._crew()
            if crew is not None:
                crew.seed(derive_seed(*key, "dropout"))
            scaler = self._scaler(instruction)
            work = train_locally(start, batches, optimiser, objective, scaler, crew)
        if standalone:
            self._optimiser_state = {instruction.run: optimiser.state_dict()}
        return work

    def _batches(self, start: LocalStart, instruction: Instruction) -> Iterator[Batch]:
        """Return the batches of a round, on the device, drawn from the site's own streams."""
        device, cohort = self.context.device, self.cohorts.train
        key = (self.context.study.federation.seed, self.site.name, instruction.round)
        drawing, augmenting = generator_for(*key, "batches"), generator_for(*key, "augmentation")
        attack, change = self._attack(start, instruction), self._mixing(augmenting)

        def to_batch(indices: Tensor) -> Batch:
            batch = cohort.batch(indices, augmenting, device)
            if attack is None:
                return batch if change is None else change(batch)
            steps = cohort.grey_steps[indices]
            each = len(batch) // len(indices)  # with patches an examination gives several
            return attack.change(batch, steps.repeat_interleave(each, dim=0))

        fewest, held = self.context.study.fewest_in_batch, self.context.study.continual
        if held is not None and held.method == "replay" and held.wave > 1:
            from wardround.client.training.replay import draw_replayed

            return map(to_batch, draw_replayed(cohort.waves, held, start.training, drawing, fewest))
        return map(to_batch, draw_batches(cohort.targets, start.training, drawing, fewest))

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

    def _mixing(self, generator: torch.Generator) -> "Callable[[Batch], Batch] | None":
        """Return what mixes the examples of each batch, where the study asks for it."""
        study = self.context.study
        if not study.training.mixup:
            return None
        alpha, classes = study.training.mixup, study.class_count
        return lambda batch: mixed(batch, alpha, classes, generator)

    def _attack(self, start: LocalStart, instruction: Instruction) -> "TrainingAttack | None":
        """Return what changes each batch's images against the network, in a round that has it."""
        options = start.training.adversarial
        if options is None or instruction.round < options.start_round:
            return None
        from wardround.client.training.adversarial import TrainingAttack

        key = (self.context.study.federation.seed, self.site.name, instruction.round)
        return TrainingAttack(options, start.network, start.loss, generator_for(*key, "attack"))
