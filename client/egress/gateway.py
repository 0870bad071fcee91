"""The one way out of a site: what is said is allowed, reduced, guarded and written down."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, time
from functools import lru_cache
from pathlib import Path
from weakref import WeakKeyDictionary

from flwr.app import RecordDict

from wardround.client.egress.disclosure import reduce_evaluation, reduce_site_info, reduce_update
from wardround.client.egress.guard import MessageSchema, check_message
from wardround.client.egress.message_schema import SiteSchemas, refusal_schema, update_bytes
from wardround.client.egress.private_round import reply_privately
from wardround.client.policy.plan_limit import plan_limit
from wardround.client.policy.policy import Policy, open_policy
from wardround.client.policy.rules import TIME_RULE, DeniedError, Facts, require_allowed
from wardround.client.session import SiteSession
from wardround.client.site.folder import KEY_FOLDER, Site, open_site
from wardround.client.training.schedule import OvertimeError, TimeLimit
from wardround.common.errors import PolicyError, RunError
from wardround.common.files.json_lines import ChainHead
from wardround.common.flower.messages.content import configs_of, fingerprint_of
from wardround.common.messages.instructions import NO_LEDGER, Instruction
from wardround.common.messages.replies import (
    Refusal,
    SiteUpdate,
    pack_evaluation,
    pack_refusal,
    pack_site_info,
    pack_update,
)
from wardround.common.parameters.arithmetic import largest_weight
from wardround.common.security.audit_log import AuditLog, Event
from wardround.common.security.signing_key import open_key
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

AUDIT_FOLDER = "audit"
_MOST_SITES = 4096  # of one process
_MOST_REPEATED = 4096  # refusals that are counted; a server may ask for any number of studies


@dataclass(frozen=True, slots=True)
class _Agreed:
    """What follows from a session and a policy; made again where the policy has changed."""

    policy: Policy
    schemas: SiteSchemas
    facts: Facts


_AGREED: WeakKeyDictionary[SiteSession, _Agreed] = WeakKeyDictionary()
# How often in a row each refusal has left, by the log's folder and what it says.
_REPEATED: dict[tuple[Path, str, str], int] = {}


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
        is_simulated = isinstance(policy, Policy) and policy.simulated
        log = open_audit_log(site.folder, durable=not is_simulated)
        explains_refusals = explains and (is_simulated or isinstance(policy, PolicyError))
        return cls(site, policy, log, explains_refusals)

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
        said = reduce_site_info(session.describe(standalone), study, agreed.policy)
        event = Event(kind="site-info", study=study.digest)
        return self._leave(pack_site_info(said), agreed.schemas.site_info(), event)

    def train(self, session: SiteSession, instruction: Instruction, standalone: bool) -> RecordDict:
        """Return the site's update, if the policy allows the study at this time of day."""
        agreed = self._agree(session, instruction, datetime.now().time())
        plan, policy = session.context.privacy, agreed.policy
        event = _event("update", instruction)

        def work(mark: ChainHead = NO_LEDGER) -> RecordDict:
            update = replace(_train(session, instruction, standalone, policy), ledger=mark)
            return pack_update(reduce_update(update, session.context.study, policy))

        def check(content: RecordDict, ledger: tuple[str, ...]) -> None:
            self._check(content, agreed.schemas.update(instruction, ledger))

        if plan is None:
            return self._leave(work(), agreed.schemas.update(instruction), event)
        content = reply_privately(session, plan, instruction, policy, work, check)
        return self._write_down(content, event)

    def send_again(self, study: Study, content: RecordDict) -> RecordDict:
        """Return an update that has passed before, if the policy still allows the study.

        Raises:
            PolicyError: It does not.
            RunError: It is no update of this study.
        """
        self.require_allowed(study, Facts(now=datetime.now().time()))
        return self._write_down(content, _event_again(content, study))

    def evaluate(self, session: SiteSession, instruction: Instruction) -> RecordDict:
        """Return the site's evaluation, if the policy allows the study."""
        study, agreed = session.context.study, self._agree(session, instruction)
        said = reduce_evaluation(session.evaluate(instruction), study, agreed.policy)
        schema = agreed.schemas.evaluation(instruction)
        return self._leave(pack_evaluation(said), schema, _event("evaluation", instruction))

    def _agree(
        self,
        session: SiteSession,
        instruction: Instruction | None = None,
        now: time | None = None,
    ) -> _Agreed:
        """Return what may be said, if the policy allows the study.

        Raises:
            PolicyError: It does not, or there is none.
        """
        agreed = _AGREED.get(session)
        if agreed is None or agreed.policy is not self.policy:
            policy = self.require_allowed(session.context.study, Facts())
            schemas = SiteSchemas(session, policy)
            facts = Facts(session.cohorts.train.patient_count, update_bytes(session.context))
            agreed = _AGREED[session] = _Agreed(policy, schemas, facts)
        weight = None
        if instruction is not None and session.context.privacy is not None:
            weight = largest_weight(instruction.parameters)
        facts = replace(agreed.facts, now=now, largest_weight=weight)
        self.require_allowed(session.context.study, facts)
        return agreed

    def refuse(self, code: str, reason: str, error: Exception) -> RecordDict:
        """Return a refusal: a word of a closed set, and a sentence in a simulation."""
        refusal = Refusal(self.site.name, code, reason if self.explains_refusals else "")
        event = Event(kind="refusal", verdict=f"deny: {code}")
        if isinstance(error, DeniedError):
            event = replace(event, verdict=f"deny: {', '.join(error.rules)}", study=error.digest)
        schema = refusal_schema(self.site.name, self.explains_refusals)
        return self._leave(pack_refusal(refusal), schema, event)

    def _leave(self, content: RecordDict, schema: MessageSchema, event: Event) -> RecordDict:
        """Return a content, once it has passed the guard and is written down."""
        self._check(content, schema)
        return self._write_down(content, event)

    def _check(self, content: RecordDict, schema: MessageSchema) -> None:
        limit = self.policy.largest_message_bytes if isinstance(self.policy, Policy) else 0
        check_message(content, schema, limit)

    def _write_down(self, content: RecordDict, event: Event) -> RecordDict:
        """Return a content that the guard has let through, once it stands in the audit log.

        A server asks again and again while a study waits for an approval. That the policy still
        does not allow it stands there at the 1st, 2nd, 4th, 8th ... time, with that number.
        """
        counted = self._counted(event)
        if counted is not None:
            seen = fingerprint_of(content)
            self.log.append(replace(counted, bytes=seen.bytes, sha256=seen.sha256))
        return content

    def _counted(self, event: Event) -> Event | None:
        """Return an event as it is written down; None for a refusal that is not due again."""
        if event.kind != "refusal" or not event.study:
            for key in [key for key in _REPEATED if key[:2] == (self.site.folder, event.study)]:
                del _REPEATED[key]
            return event
        key = (self.site.folder, event.study, event.verdict)
        times = _REPEATED.pop(key, 0) + 1
        if len(_REPEATED) >= _MOST_REPEATED:
            del _REPEATED[next(iter(_REPEATED))]
        _REPEATED[key] = times
        if times & (times - 1):
            return None
        return event if times == 1 else replace(event, verdict=f"{event.verdict} ({times} times)")


@lru_cache(maxsize=_MOST_SITES)
def open_audit_log(folder: Path, durable: bool = True) -> AuditLog:
    """Return the audit log of a site folder, signed with the key that lies there.

    Raises:
        InputError: The key cannot be used.
    """
    return AuditLog(folder / AUDIT_FOLDER, open_key(folder / KEY_FOLDER, durable), durable)


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


def _event(kind: str, instruction: Instruction) -> Event:
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
