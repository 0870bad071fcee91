"""The one way out of a site: what is said is allowed, reduced, guarded and written down."""

import logging
import math
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from flwr.app import RecordDict

from wardround.client.data.manifest.label_words import label_words
from wardround.client.egress.disclosure import reduce_evaluation, reduce_site_info, reduce_update
from wardround.client.egress.guard import MessageSchema, check_message
from wardround.client.egress.message_schema import (
    InstructionError,
    SiteSchemas,
    received_arrays,
    refusal_schema,
    update_bytes,
)
from wardround.client.egress.private_evaluation import evaluate_once
from wardround.client.egress.private_round import (
    charge_masked_round,
    drop_counted,
    release_masked_round,
    reply_privately,
)
from wardround.client.egress.receipts import add_report, take_receipt
from wardround.client.egress.repeated_refusals import due
from wardround.client.policy.evaluations import count_canary, count_evaluation
from wardround.client.policy.plan_limit import plan_limit
from wardround.client.policy.policy import Policy, approved_rounds, open_policy
from wardround.client.policy.received_models import note_received
from wardround.client.policy.rules import (
    EVALUATION_RULE,
    PACKS_RULE,
    TIME_RULE,
    DeniedError,
    Facts,
    require_allowed,
)
from wardround.client.policy.trained_rounds import count_round
from wardround.client.session.model_context import ModelContext
from wardround.client.session.session import SiteSession
from wardround.client.site.folder import AUDIT_FOLDER, KEY_FOLDER, Site, open_site
from wardround.client.training.schedule import OvertimeError, TimeLimit
from wardround.common.errors import PolicyError, RunError
from wardround.common.files.json_lines import ChainHead
from wardround.common.flower.messages.content import configs_of, fingerprint_of, to_bytes
from wardround.common.messages.instructions import (
    NO_LEDGER,
    Instruction,
    unpack_instruction,
    unpack_weights,
)
from wardround.common.messages.lineage import LINEAGE_RECORD
from wardround.common.messages.replies import (
    Refusal,
    SiteUpdate,
    pack_evaluation,
    pack_refusal,
    pack_site_info,
    pack_update,
)
from wardround.common.models.pretrained import lacks_weights, read_weights, store_weights
from wardround.common.parameters.arithmetic import digest as parameters_digest
from wardround.common.parameters.arithmetic import largest_weight
from wardround.common.parameters.schema import Parameters, check_schema
from wardround.common.privacy.secure_aggregation.refusals import MaskingError
from wardround.common.security.audit_log import AuditLog, Event
from wardround.common.security.signing_key import open_key
from wardround.common.study.plans.patient_privacy import (
    MeasuredPart,
    plan_charges,
    plan_evaluation,
)
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.common.messages.masking import StageAsked

logger = logging.getLogger(__name__)
_MOST_SITES = 4096  # of one process


@dataclass(frozen=True, slots=True)
class _Agreed:
    """What follows from a session and a policy; made again where the policy has changed."""

    policy: Policy
    schemas: SiteSchemas
    facts: Facts


_AGREED: WeakKeyDictionary[SiteSession, _Agreed] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Gateway:
    """The way out of one site, by its policy as it is now.

    Attributes:
        policy: What the site allows, or why that is not known: then it allows nothing.
        explains_refusals: Whether a refusal gives its reason in a sentence; a hospital's never
            does.
    """

    site: Site
    policy: Policy | PolicyError
    log: AuditLog
    explains_refusals: bool

    @classmethod
    def open(cls, folder: Path, explains: bool) -> "Gateway":
        """Open the gateway of a site folder.

        Args:
            explains: Whether this process is part of a simulation, which shows reasons.

        Raises:
            DataError: It is no site folder.
            InputError: The site's key cannot be used.
        """
        site = open_site(folder)
        policy: Policy | PolicyError
        try:
            policy = open_policy(site.folder)
        except PolicyError as error:
            policy = error
        simulated = is_simulated(policy)
        log = open_audit_log(site.folder, durable=not simulated)
        explains_refusals = explains and (simulated or isinstance(policy, PolicyError))
        return cls(site, policy, log, explains_refusals)

    def take_receipt(self, content: RecordDict) -> None:
        """Keep the server's receipt for the audit log, where an instruction brings one."""
        if not is_simulated(self.policy):
            take_receipt(content, self.site, self.log)

    def keep_weights(self, study: Study, content: RecordDict) -> None:
        """Keep the weights that a study starts from, where they lack here and the server sent them.

        The hospital approved their hash with the study; nothing else is kept.

        Raises:
            ModelError: They are others.
            PolicyError: They hold numbers that the policy does not take.
        """
        sent = None if not lacks_weights(study) else unpack_weights(content)
        if sent is None or study.model.weights_sha256 is None:
            return
        weights = read_weights(study.model.weights_sha256, sent)
        self.require_allowed(study, Facts(largest_weight=largest_weight(weights)))
        store_weights(study.model.weights_sha256, sent)
        logger.info("took the weights of the study from the server bytes=%d", len(sent))

    def let_go(self, sessions: Iterable[SiteSession]) -> None:
        """Have this site's sessions drop what was withdrawn or changed since they read it.

        A simulated site's images stay as they are while it runs: only its manifest is looked at.
        """
        images, held = not is_simulated(self.policy), tuple(sessions)
        for _ in range(2):  # one that lets go may remove what another has on the disk
            for session in held:
                if session.has_stale_data(images):
                    logger.info("the manifest or an image was changed: the data are read anew")
                    _AGREED.pop(session, None)
                    session.let_go()

    def require_allowed(self, study: Study, facts: Facts) -> Policy:
        """Return the policy, if it allows a study.

        Raises:
            PolicyError: It does not, or there is none.
            StudyError: What the study spends takes too long to work out.
        """
        if isinstance(self.policy, PolicyError):
            raise self.policy
        # Only what a site adds noise to has a promise that takes time to work out.
        is_private = what_leaves(study).noise_added_by == "site"
        with plan_limit() if is_private else nullcontext():
            require_allowed(self.policy, study, facts)
        return self.policy

    def describe(self, session: SiteSession, standalone: bool) -> RecordDict:
        """Return what the site says of itself, if the policy allows the study."""
        study, agreed = session.context.study, self._agree(session)
        self.log.append(Event(kind="decision", study=study.digest))
        self._note_labels(session)
        said = reduce_site_info(session.describe(standalone), study, agreed.policy)
        said = replace(said, monitoring=self._monitoring_word(study, agreed.policy))
        event = Event(kind="site-info", study=study.digest)
        return self._leave(pack_site_info(said), agreed.schemas.site_info(said.monitoring), event)

    def _monitoring_word(self, study: Study, policy: Policy) -> str:
        """Return the one word on the last period that may leave; "" for none."""
        if policy.monitoring == "no":
            return ""
        from wardround.client.policy.monitoring_word import word_of_period

        private = what_leaves(study).noise_added_by == "site"
        try:
            word, is_new = word_of_period(self.site.state_folder, policy, private)
        except PolicyError as error:  # a study does not wait for it
            logger.warning("%s", error)
            return ""
        if is_new:
            self.log.append(Event(kind="monitoring", study=study.digest))
        return word

    def train(self, session: SiteSession, instruction: Instruction, standalone: bool) -> RecordDict:
        """Return the site's update, if the policy allows the study at this time of day."""
        agreed = self._agree(session, instruction, datetime.now().time())
        plan, policy = session.context.privacy, agreed.policy
        if what_leaves(session.context.study).masked:
            return self._train_masked(session, instruction, agreed)
        event = _event("update", instruction)

        is_measured = self._may_measure(session.context, policy)
        asked = instruction if is_measured else replace(instruction, validate=False)

        def work(mark: ChainHead = NO_LEDGER) -> RecordDict:
            update = replace(_train(session, asked, standalone, policy), ledger=mark)
            if not is_measured:
                update = replace(update, training_loss=math.nan)
            packed = pack_update(reduce_update(update, session.context.study, policy))
            return self._signed(packed, asked, mark)

        def check(content: RecordDict, ledger: tuple[str, ...]) -> None:
            self._check(content, agreed.schemas.update(instruction, ledger))

        if plan is None:
            self._count(session.context.study, instruction, policy)
            return self._leave(work(), agreed.schemas.update(instruction), event)
        content = reply_privately(session, plan, instruction, policy, work, check)
        return self._write_down(content, event)

    def _train_masked(
        self, session: SiteSession, instruction: Instruction, agreed: _Agreed
    ) -> RecordDict:
        """Return the keys of a round whose update is trained, and will leave under a mask.

        The update is checked in the clear, as it would be if it left so.
        """
        from wardround.client.egress.masking import MaskedSite

        study, policy = session.context.study, agreed.policy
        plan = plan_charges(study) if study.privacy.charges_patients else None

        def train() -> SiteUpdate:
            is_measured = self._may_measure(session.context, policy)
            if plan is None:
                self._count(study, instruction, policy)
            else:
                charge_masked_round(session, plan, instruction, policy)
            asked = instruction if is_measured else replace(instruction, validate=False)
            self._note_received(instruction)
            update = _train(session, asked, False, policy)
            clear = replace(
                update,
                parameters=_as_trained(update, session.context),
                examinations=1,
                updates=0,
                seconds=0.0,
                training_loss=math.nan,
                metrics=None,
            )
            self._check(pack_update(clear), agreed.schemas.unmasked_update(instruction))
            return update

        masked = MaskedSite(session, policy, instruction.run)
        content = masked.train(instruction, train)
        schema = masked.schema_of(instruction, "advertise")
        return self._leave(content, schema, _event("masking", instruction))

    def answer_masking(self, session: SiteSession, content: RecordDict) -> RecordDict:
        """Return the site's message of a later stage of a masked round.

        Args:
            content: Of the server's question.

        Raises:
            MaskingError: The server asks for what would tell more than a sum; its name is audited.
        """
        from wardround.client.egress.masking import MaskedSite
        from wardround.common.messages.masking import MASK, unpack_asked

        asked, agreed = unpack_asked(content), self._agree(session)
        self._check_about(session.context.study, asked.digest)
        masked = MaskedSite(session, agreed.policy, asked.run)
        answer = masked.answer(asked)
        kind = "update" if asked.stage == MASK else "masking"
        if asked.stage == MASK and session.context.study.privacy.charges_patients:
            release_masked_round(session, asked, to_bytes(answer), agreed.policy)
        return self._leave(answer, masked.schema_of(asked, asked.stage), _event(kind, asked))

    def _count(self, study: Study, instruction: Instruction, policy: Policy) -> None:
        """Count a training that no ledger counts, before it begins.

        Raises:
            DeniedError: No more of them were approved.
        """
        allowed = approved_rounds(self.site.folder, study)
        if allowed is not None:
            count_round(self.site.folder, instruction, allowed, durable=not policy.simulated)

    def _may_measure(self, context: ModelContext, policy: Policy) -> bool:
        """Count the measurements in an update; return whether the policy allows them.

        Raises:
            DeniedError: It does not, and the strategy needs one.
        """
        study = context.study
        if what_leaves(study).noised_metrics:
            return True  # its updates hold none
        try:
            count_evaluation(self.site.folder, study.digest, policy, date.today())
        except DeniedError as error:
            if context.plan.aggregation == "fair-mean":  # weighs sites by their loss
                raise
            logger.warning("a round is trained without being measured: %s", error)
            return False
        return True

    def send_again(self, study: Study, content: RecordDict) -> RecordDict:
        """Return an update that has passed before, if the policy still allows the study.

        Raises:
            PolicyError: It does not.
            RunError: It is no update of this study.
        """
        self.require_allowed(study, Facts(now=datetime.now().time()))
        return self._write_down(content, _event_again(content, study))

    def evaluate(self, session: SiteSession, instruction: Instruction) -> RecordDict:
        """Return the site's evaluation, if the policy allows the study, and another of it.

        A simulated site, whose patients are nobody's, tells its test results without noise: a
        report is about how good a model is. The model is chosen by what a hospital would tell.
        """
        agreed, event = self._agree(session, instruction), _event("evaluation", instruction)
        study, policy = session.context.study, agreed.policy
        drop_counted(session, instruction)
        is_shown = policy.simulated and instruction.split == "test"
        if what_leaves(study).masked and not is_shown:
            msg = "what is measured leaves in a sum of all sites alone, within a masked round."
            raise DeniedError(msg, (EVALUATION_RULE,), study.digest)
        if what_leaves(study).noised_metrics and not is_shown:
            return self._write_down(self._evaluate_privately(session, instruction, agreed), event)
        count_evaluation(self.site.folder, study.digest, policy, date.today())
        self._note_received(instruction)
        said = reduce_evaluation(session.evaluate(instruction), study, policy)
        schema = agreed.schemas.evaluation(instruction)
        return self._leave(pack_evaluation(said), schema, event)

    def _evaluate_privately(
        self, session: SiteSession, instruction: Instruction, agreed: _Agreed
    ) -> RecordDict:
        """Return the one answer to an instruction of a private study.

        Raises:
            DeniedError: There is none, or it was given.
        """
        study, policy = session.context.study, agreed.policy
        part: MeasuredPart = "test" if instruction.split == "test" else "validation"
        plan = plan_evaluation(study, part)
        if plan is None or policy.metrics == "none":
            reason = "the study measures none" if plan is None else "metrics = 'none' in the policy"
            msg = f"nothing is told of {part} patients: {reason}."
            raise DeniedError(msg, (EVALUATION_RULE,), study.digest)

        def work() -> RecordDict:
            said = session.evaluate_privately(instruction, plan)
            return pack_evaluation(reduce_evaluation(said, study, policy))

        def check(content: RecordDict) -> None:
            self._check(content, agreed.schemas.noised_evaluation(instruction))

        return evaluate_once(session, plan, instruction, policy, work, check)

    def _note_received(self, instruction: Instruction) -> None:
        """Write down which model came, where no signature of the round says so."""
        if not is_simulated(self.policy):
            received = parameters_digest(instruction.parameters)
            note_received(self.site.folder, instruction.digest, received)

    def _note_labels(self, session: SiteSession) -> None:
        """Write down which words the site reads as which classes, and what its readers said.

        Both by their digest: of what readers said the hash of its chain's last line.
        """
        study = session.context.study
        if digest := label_words(session.site, study).digest:
            self.log.append(Event(kind="labels", study=study.digest, sha256=digest))
        if session.site.corrections_path.exists():
            from wardround.client.data.manifest.corrections import read_corrections

            head = read_corrections(session.site.corrections_path).head
            verdict = f"allow: {head.entries} corrections of readers count"
            said = Event(kind="corrections", verdict=verdict, study=study.digest, sha256=head.hash)
            self.log.append(said)

    def tell_statistics(self, session: SiteSession, digest: str) -> RecordDict:
        """Return the histograms that a study is planned from, if the policy allows them.

        A study has one answer: who asks again gets the same bytes.

        Args:
            digest: Which study the server asks about.
        """
        from wardround.client.egress.statistics_answer import answer_statistics

        agreed, study = self._agree(session), session.context.study
        self._note_labels(session)
        event = Event(kind="statistics", study=study.digest)
        content = answer_statistics(session, digest, agreed.policy, self._check)
        return self._write_down(content, event)

    def tell_packs(self, session: SiteSession, content: RecordDict) -> RecordDict:
        """Return the evidence of a finished model, once a run, if study and policy allow it.

        Args:
            content: Of the server's question.
        """
        from wardround.client.egress.packs.answer import answer_packs

        instruction = unpack_instruction(content)
        agreed = self._agree_on_pack(session, instruction)
        told = answer_packs(session, instruction, agreed.policy, self._check)
        return self._write_down(told, _event("pack", instruction))

    def tell_placements(self, session: SiteSession, content: RecordDict) -> RecordDict:
        """Return the squares of placement values against merged histograms, once a run.

        Args:
            content: Of the server's question.
        """
        from wardround.client.egress.packs.answer import answer_placements
        from wardround.common.messages.packs import merged_counts

        instruction = unpack_instruction(content)
        agreed = self._agree_on_pack(session, instruction)
        merged = merged_counts(content, session.context.study)
        told = answer_placements(session, instruction, merged, agreed.policy, self._check)
        return self._write_down(told, _event("placements", instruction))

    def tell_canary(self, study: Study, content: RecordDict, device: str) -> RecordDict:
        """Return how an approved study would go here, in words; nothing is charged or trained.

        Args:
            content: Of the server's question.
            device: Where it would be trained.

        Raises:
            DeniedError: The policy does not allow the study, or no more canaries of it.
        """
        from wardround.client.egress.canary.answer import canary_schema, try_stages
        from wardround.common.messages.canary import asked_canary, pack_canary

        self._check_about(study, asked_canary(content))
        policy = self.require_allowed(study, Facts(now=datetime.now().time()))
        count_canary(self.site.folder, study.digest, policy)
        said = try_stages(self.site, study, policy, lambda: ModelContext.build(study, device))
        event = Event(kind="canary", study=study.digest)
        return self._leave(pack_canary(said), canary_schema(self.site, study), event)

    def carry(self, study: Study, content: RecordDict, device: str) -> RecordDict:
        """Return the model that a server sent, as an update of an approved study travels.

        Args:
            content: An instruction, with the study's shared model.
            device: Where it would be trained.

        Raises:
            DeniedError: The policy does not allow the study.
            ModelError: The arrays are not those of the study.
        """
        from wardround.client.egress.canary.update import carried, carried_schema

        instruction = unpack_instruction(content)
        self._check_about(study, instruction.digest)
        self.require_allowed(study, Facts())
        context = ModelContext.build(study, device)
        check_schema(instruction.parameters, received_arrays(context)[0])
        self.require_allowed(study, Facts(update_bytes=update_bytes(context)))
        packed = carried(context, instruction, self.site.name)
        schema = carried_schema(context, instruction, self.site.name)
        return self._leave(packed, schema, _event("carry", instruction))

    def _check_about(self, study: Study, digest: str) -> None:
        if digest != study.digest or study.statistics.ask:
            msg = f"the question is not about study {study.digest[:12]}, or that trains nothing."
            raise InstructionError(msg)

    def _agree_on_pack(self, session: SiteSession, instruction: Instruction) -> _Agreed:
        agreed, study = self._agree(session, instruction), session.context.study
        drop_counted(session, instruction)
        if what_leaves(study).noise_added_by != "nobody":
            msg = "a study that promises noise tells no sums of evidence without it."
            raise DeniedError(msg, (PACKS_RULE,), study.digest)
        return agreed

    def _agree(
        self,
        session: SiteSession,
        instruction: Instruction | None = None,
        now: time | None = None,
    ) -> _Agreed:
        """Return what may be said, if the policy allows the study, and the study the instruction.

        Args:
            now: When it is asked to train; None where it is asked something else.

        Raises:
            PolicyError: The policy does not, or there is none.
            InstructionError: The study does not.
            ModelError: The instruction's arrays are not those of the study.
        """
        agreed = _AGREED.get(session)
        if agreed is None or agreed.policy is not self.policy:
            policy = self.require_allowed(session.context.study, Facts())
            schemas = SiteSchemas(session, policy)
            # Under patient privacy a refusal by the number of patients would be an exact bit about
            # one of them: the number is held against the policy when a person approves the study.
            counted = session.context.privacy is None
            patients = session.cohorts.train.patient_count if counted else None
            facts = Facts(patients, update_bytes(session.context))
            agreed = _AGREED[session] = _Agreed(policy, schemas, facts)
        weight = None
        if instruction is not None:
            agreed.schemas.check_instruction(instruction, trains=now is not None)
            if session.context.privacy is not None:
                weight = largest_weight({**instruction.parameters, **instruction.auxiliary})
        facts = replace(agreed.facts, now=now, largest_weight=weight)
        self.require_allowed(session.context.study, facts)
        if session.context.study.continual is not None:
            from wardround.client.policy.known_parent import require_known_parent

            require_known_parent(self.site.folder, session.context.study)
        return agreed

    def refuse(
        self, code: str, reason: str, error: Exception, cause: str | None = None
    ) -> RecordDict:
        """Return a refusal: a word of a closed set, and a sentence in a simulation.

        Args:
            cause: The word that stands in the log, where another one leaves.
        """
        refusal = Refusal(self.site.name, code, reason if self.explains_refusals else "")
        event = Event(kind="refusal", verdict=f"deny: {cause or code}")
        if isinstance(error, MaskingError):
            event = replace(event, verdict=f"deny: secure aggregation, {error.refusal.value}")
        if isinstance(error, DeniedError):
            event = replace(event, verdict=f"deny: {', '.join(error.rules)}", study=error.digest)
        schema = refusal_schema(self.site.name, self.explains_refusals)
        return self._leave(pack_refusal(refusal), schema, event)

    def _leave(self, content: RecordDict, schema: MessageSchema, event: Event) -> RecordDict:
        """Return a content, once it has passed the guard and is written down."""
        self._check(content, schema)
        return self._write_down(content, event)

    def _signed(
        self, content: RecordDict, instruction: Instruction, ledger: ChainHead
    ) -> RecordDict:
        """Return an update with what a hospital signs of it; a simulated site signs nothing."""
        if is_simulated(self.policy):
            return content
        from wardround.client.egress.round_receipt import received_model, sign_update

        signed = sign_update(content, instruction, ledger.hash, self.site.folder, self.log)
        note_received(self.site.folder, instruction.digest, received_model(signed))
        return signed

    def _check(self, content: RecordDict, schema: MessageSchema) -> None:
        limit = self.policy.largest_message_bytes if isinstance(self.policy, Policy) else 0
        if type(content) is RecordDict and LINEAGE_RECORD in content:
            from wardround.client.egress.round_receipt import without_receipt

            content = without_receipt(content, self.site.folder)
        check_message(content, schema, limit)

    def _write_down(self, content: RecordDict, event: Event) -> RecordDict:
        """Return a content that the guard has let through, once it stands in the audit log.

        A hospital adds how that log stood before, for the server to countersign.
        """
        if not is_simulated(self.policy):
            add_report(content, self.log)
        counted = due(self.site.folder, event)
        if counted is not None:
            seen = fingerprint_of(content)
            self.log.append(replace(counted, bytes=seen.bytes, sha256=seen.sha256))
        return content


@lru_cache(maxsize=_MOST_SITES)
def open_audit_log(folder: Path, durable: bool = True) -> AuditLog:
    """Return the audit log of a site folder, signed with the key that lies there.

    Raises:
        InputError: The key cannot be used.
    """
    return AuditLog(folder / AUDIT_FOLDER, open_key(folder / KEY_FOLDER, durable), durable)


def is_simulated(policy: Policy | PolicyError) -> bool:
    """Whether a site says that it is no hospital."""
    return isinstance(policy, Policy) and policy.simulated


def _train(
    session: SiteSession, instruction: Instruction, standalone: bool, policy: Policy
) -> SiteUpdate:
    """Train for as long as the policy allows.

    Raises:
        DeniedError: That was too short; nothing leaves, and what was charged stays charged.
    """
    minutes = policy.largest_training_minutes
    limit = TimeLimit.of_minutes(minutes)
    try:
        update = session.train(instruction, standalone, limit)
        limit.check()  # the last batch may have passed it
    except OvertimeError:
        msg = (
            f"the training was stopped after the {minutes:g} minutes that the site's policy "
            "allows: nothing of it leaves. Raise largest_training_minutes, or ask for fewer steps."
        )
        raise DeniedError(msg, (TIME_RULE,), instruction.digest) from None
    return update


def _as_trained(update: SiteUpdate, context: ModelContext) -> Parameters:
    """Return an update's model in the types of the network; one with distributed noise is finer."""
    if context.privacy is None:
        return dict(update.parameters)
    whole, trained = context.network.state_dict(), context.layout
    names = [n for n in trained.shared if n in trained.trainable or n in trained.frozen]
    return {name: update.parameters[name].to(whole[name].dtype) for name in names}


def _event(kind: str, instruction: "Instruction | StageAsked") -> Event:
    return Event(
        kind=kind,
        study=instruction.digest,
        run=instruction.run,
        round=instruction.round,
        attempt=instruction.attempt,
    )


def _event_again(content: RecordDict, study: Study) -> Event:
    header = configs_of(content).get("header")
    if header is None or header.get("digest") != study.digest:
        msg = "the kept answer is to another study: it is not sent."
        raise RunError(msg)
    number, attempt = header["round"], header["attempt"]
    if not isinstance(number, int) or not isinstance(attempt, int):
        msg = "the kept answer is damaged: it is not sent."
        raise RunError(msg)
    run = str(header["run"])
    return Event(kind="update", study=study.digest, run=run, round=number, attempt=attempt)
