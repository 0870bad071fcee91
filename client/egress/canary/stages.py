"""The stages of a round, gone through at a site one after the other, each with a word of its own.

A stage that fails does not keep the next ones from being tried, unless they need what it makes. All
of it stays here: :mod:`wardround.client.egress.canary.answer` says what leaves.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date

from wardround.client.data.cohort import Cohort
from wardround.client.data.manifest.parts.partition import EmptyPartError
from wardround.client.egress.canary.update import update_of_canary
from wardround.client.egress.disclosure import reduce_evaluation, reduce_update
from wardround.client.egress.guard import check_message
from wardround.client.egress.message_schema import SiteSchemas, update_bytes
from wardround.client.egress.private_round import caps_of
from wardround.client.policy.evaluations import evaluations_left
from wardround.client.policy.policy import Policy, approved_rounds
from wardround.client.policy.trained_rounds import trained_rounds
from wardround.client.privacy.ledger.foresight import reach_of
from wardround.client.session.model_context import ModelContext
from wardround.client.session.session import SiteSession
from wardround.client.site.folder import Site
from wardround.client.training.schedule import FullMemoryError
from wardround.common.errors import (
    DataError,
    GuardError,
    InputError,
    WardroundError,
    describe_defect,
    is_full_disk,
)
from wardround.common.messages.canary import (
    BUDGET,
    CLASSES,
    DATA,
    DISK,
    EVALUATION,
    EVIDENCE,
    GUARD,
    METRICS,
    OK,
    SITE_STAGES,
    STEP,
    UNTRIED,
    UPDATE,
)
from wardround.common.messages.instructions import Instruction, new_run
from wardround.common.messages.replies import SiteEvaluation, pack_update
from wardround.common.metrics.sums import MetricSums, SiteValues, values_of
from wardround.common.parameters.arithmetic import distance, is_finite
from wardround.common.parameters.schema import Parameters, read_parameters
from wardround.common.study.plans.what_leaves import kept_model, what_leaves

logger = logging.getLogger(__name__)
_STEPS = 3  # the first has costs of its own, and is not timed where there are others
_PROBE_BYTES = 256 * 1024  # written at a time
_LARGEST_PROBE = 2 * 10**9
_KEPT = 3  # an instruction, a reply and what a site keeps from round to round
_LARGEST_PARAMETER = 1e15
_EMPTY = {"train": "too-few", "validation": "no-validation", "test": "no-test"}


@dataclass(slots=True)
class Walk:
    """One site's way through the stages.

    Attributes:
        policy: Allows the study.
        words: By stage, of those that were tried.
        seconds: Of a whole round, as its steps and evaluations here let expect; None if unknown.
    """

    site: Site
    context: ModelContext
    policy: Policy
    words: dict[str, str] = field(default_factory=lambda: dict.fromkeys(SITE_STAGES, UNTRIED))
    seconds: float | None = None
    _run: str = field(default_factory=new_run)
    _first: Parameters = field(init=False)
    _session: SiteSession | None = None
    _trained: Parameters = field(default_factory=dict)
    _evaluated: SiteEvaluation | None = None

    def __post_init__(self) -> None:
        """Keep the study's first model: what a server sends has no part in a canary."""
        self._first = read_parameters(self.context.network)

    def go(self) -> None:
        """Try each stage."""
        stages: dict[str, Callable[[], str]] = {
            DISK: self._disk,
            BUDGET: self._budget,
            DATA: self._data,
            CLASSES: self._classes,
            STEP: self._step,
            UPDATE: self._update,
            EVALUATION: self._evaluation,
            METRICS: self._metrics,
            EVIDENCE: self._evidence,
            GUARD: self._guard,
        }
        for stage, attempt in stages.items():
            self.words[stage] = self._tried(stage, attempt)

    def _tried(self, stage: str, attempt: Callable[[], str]) -> str:
        """Return a stage's word; what went wrong is said here, in the site's own log."""
        try:
            return attempt()
        except WardroundError as error:
            logger.warning("canary stage=%s: %s", stage, error)
            return _word_of(stage, error)
        except Exception as error:
            logger.error("canary stage=%s: %s", stage, describe_defect(error))
            return "disk-full" if is_full_disk(error) else "internal"

    # --- What no patient has a part in ------------------------------------------------------------

    def _disk(self) -> str:
        """Write what a round would write, and take it away again."""
        folder = self.site.state_folder
        folder.mkdir(parents=True, exist_ok=True)
        needed = min(_KEPT * update_bytes(self.context) + _PROBE_BYTES, _LARGEST_PROBE)
        if shutil.disk_usage(folder).free < needed:
            logger.warning("canary stage=disk: a round writes %d bytes, and less is free", needed)
            return "disk-full"
        probe = folder / "canary.part"
        try:
            with probe.open("wb", buffering=0) as stream:
                for _ in range(-(-needed // _PROBE_BYTES)):
                    written = stream.write(bytes(_PROBE_BYTES))
                    if written < _PROBE_BYTES:
                        return "disk-full"
                os.fsync(stream.fileno())
        finally:
            probe.unlink(missing_ok=True)
        return OK

    def _budget(self) -> str:
        """Ask whether all rounds of the study may be trained, and not only the first."""
        study, policy, folder = self.context.study, self.policy, self.site.folder
        allowed = approved_rounds(folder, study)
        plan = self.context.privacy
        if plan is not None:
            steps = None if allowed is None else allowed * plan.steps
            reach = reach_of(folder, study, caps_of(policy, steps))
            return OK if reach == "all" else f"budget-{reach}"
        rounds = study.federation.rounds
        if allowed is not None and allowed - trained_rounds(folder, study.digest) < rounds:
            return "rounds-some"
        if policy.simulated or policy.metrics == "none":
            return OK
        left = evaluations_left(folder, study.digest, policy, date.today())
        return OK if left > rounds else "measured-some"  # one a round, and one at the end

    # --- The data ---------------------------------------------------------------------------------

    def _data(self) -> str:
        try:
            self._session = session = SiteSession(self.site, self.context)
            self._prepare(session)
        except EmptyPartError as error:
            logger.warning("canary stage=data: %s", error)
            return _EMPTY[error.part]
        except DataError as error:
            logger.warning("canary stage=data: %s", error)
            return self._count_unreadable(error)
        return "unreadable-skipped" if _left_out(session) and not self.site.is_tolerant else OK

    def _prepare(self, session: SiteSession) -> None:
        for cohort in _parts(session):
            cohort.prepare()
        session.cohorts.train.require_batches()

    def _count_unreadable(self, error: DataError) -> str:
        """Go on with the images that can be read, and say how many cannot, as a word."""
        settings = self.site.settings.model_copy(update={"skip_unreadable": True})
        self._session = None
        try:
            session = SiteSession(replace(self.site, settings=settings), self.context)
            for cohort in _parts(session):
                cohort.prepare()
        except DataError:
            return "manifest"
        self._session = session
        left_out = _left_out(session)
        for cohort in _parts(session):
            for note in cohort.notes:
                logger.warning("canary stage=data: %s", note)
        if not left_out:
            return "sizes" if "size" in str(error) else "manifest"
        return "few-unreadable" if left_out < self.policy.smallest_cell else "many-unreadable"

    def _classes(self) -> str:
        if self._session is None:
            return UNTRIED
        study, cohorts = self.context.study, self._session.cohorts
        if cohorts.train.patient_count < self.policy.smallest_cohort:
            return "too-few"
        counts = cohorts.train.case_counts()
        if counts is not None and bool((counts == 0).any()):
            return "class-missing"
        if not len(cohorts.validation) and kept_model(study) == "best":
            return "no-validation"
        asks_test = study.evaluation.test_fraction > 0 or bool(study.evaluation.pack)
        return "no-test" if asks_test and not len(cohorts.test) else OK

    # --- Training ---------------------------------------------------------------------------------

    def _step(self) -> str:
        session = self._session
        if session is None or not len(session.cohorts.train):
            return UNTRIED
        steps = min(_STEPS, session.steps)
        began = time.perf_counter()
        _, self._trained = session.make_steps(self._instruction(), 1)
        seconds = time.perf_counter() - began
        if steps > 1:
            began = time.perf_counter()
            _, self._trained = session.make_steps(self._instruction(), steps - 1)
            seconds = (time.perf_counter() - began) / (steps - 1)
        self.seconds = seconds * session.steps
        limit = self.policy.largest_training_minutes
        return "minutes" if limit is not None and self.seconds > limit * 60 else OK

    def _instruction(self, split: str = "validation") -> Instruction:
        """Return an instruction of a run that nobody else has, with the study's own first model."""
        context = self.context
        sent = context.layout.shared_part(self._first)
        return Instruction(
            context.study.digest, self._run, 1, sent, split=split, personal=False, counted_round=0
        )

    def _update(self) -> str:
        if not self._trained:
            return UNTRIED
        if not all(is_finite(one, _LARGEST_PARAMETER) for one in self._trained.values()):
            return "not-finite"
        return OK if distance(self._trained, self._first) > 0 else "unmoved"

    # --- Measuring --------------------------------------------------------------------------------

    def _evaluation(self) -> str:
        session = self._session
        if session is None:
            return UNTRIED
        began = time.perf_counter()
        self._evaluated = session.evaluate(self._instruction())
        if self.seconds is not None:
            self.seconds += time.perf_counter() - began
        session.evaluate(self._instruction("test"))
        return OK

    def _metrics(self) -> str:
        study, policy = self.context.study, self.policy
        if policy.metrics == "none":
            return "withheld-policy"
        leaves = what_leaves(study)
        if leaves.noised_metrics or not leaves.round_metrics:
            return OK
        if self._evaluated is None or self._evaluated.metrics is None:
            return UNTRIED
        whole = self._evaluated.metrics
        said = reduce_evaluation(self._evaluated, study, policy).metrics
        if isinstance(said, SiteValues) and study.metric in said.values:
            return OK
        if isinstance(said, MetricSums):
            return OK if _has_value(said, study.metric, self) else "undefined"
        return (
            "withheld-few"
            if isinstance(whole, MetricSums) and _has_value(whole, study.metric, self)
            else "undefined"
        )

    def _evidence(self) -> str:
        asked, policy = self.context.study.evaluation.pack, self.policy
        if not asked:
            return OK
        told = [name for name in asked if name in policy.packs]
        if not told:
            return "evidence-none"
        few = (
            self._session is not None
            and what_leaves(self.context.study).noise_added_by == "nobody"
            and self._session.cohorts.test.patient_count < policy.smallest_cell
        )
        if few:
            return "evidence-few"
        return OK if len(told) == len(asked) else "evidence-some"

    def _guard(self) -> str:
        """Reduce and check a whole update, as it would leave."""
        if not self._trained or self._session is None:
            return UNTRIED
        session, instruction, study = self._session, self._instruction(), self.context.study
        update = update_of_canary(self.context, instruction, self.site.name, self._trained)
        metrics = self._evaluated.metrics if self._evaluated is not None else None
        leaves = what_leaves(study)
        update = replace(
            update,
            examinations=len(session.cohorts.train),
            updates=session.steps,
            seconds=1.0,
            training_loss=1.0,
            metrics=metrics if isinstance(metrics, MetricSums) and leaves.round_metrics else None,
        )
        content = pack_update(reduce_update(update, study, self.policy))
        schema = SiteSchemas(session, self.policy).update(instruction)
        check_message(content, schema, self.policy.largest_message_bytes)
        return OK


def _word_of(stage: str, error: WardroundError) -> str:
    """Return the word for what went wrong in a stage."""
    if is_full_disk(error):
        return "disk-full"
    if isinstance(error, FullMemoryError):
        return "memory"
    if isinstance(error, GuardError):
        return "too-large" if "larger than" in str(error) else "guard"
    words = {
        DISK: "disk-full",
        BUDGET: "ledger",
        DATA: "manifest",
        CLASSES: "manifest",
        STEP: "device" if isinstance(error, InputError) else "training",
        EVALUATION: "evaluation",
    }
    return words.get(stage, "internal")


def _has_value(sums: MetricSums, metric: str, walk: Walk) -> bool:
    found = [
        one.value
        for one in values_of(sums, walk.context.study)
        if one.metric == metric and not one.class_name
    ]
    return bool(found) and found[0] == found[0]  # NaN is not


def _parts(session: SiteSession) -> tuple[Cohort, ...]:
    with suppress(DataError):
        cohorts = session.cohorts
        return cohorts.train, cohorts.validation, cohorts.test
    return ()


def _left_out(session: SiteSession) -> int:
    """Return how many examinations of the manifest could not be read."""
    return sum(cohort.left_out for cohort in _parts(session))
