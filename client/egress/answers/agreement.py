"""What a site may say in a study: agreed on by its policy, and by the study for what is asked."""

from dataclasses import dataclass, replace
from datetime import time
from weakref import WeakKeyDictionary

from wardround.client.egress.message_schema import (
    InstructionError,
    SiteSchemas,
    update_bytes,
)
from wardround.client.egress.private_round import drop_counted
from wardround.client.egress.way_out import WayOut
from wardround.client.policy.policy import Policy
from wardround.client.policy.rules import PACKS_RULE, DeniedError, Facts
from wardround.client.session.session import SiteSession
from wardround.common.messages.instructions import Instruction
from wardround.common.parameters.arithmetic import largest_weight
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study


@dataclass(frozen=True, slots=True)
class Agreement:
    """What follows from a session and a policy; made again where the policy has changed."""

    policy: Policy
    schemas: SiteSchemas
    facts: Facts


_KEPT: WeakKeyDictionary[SiteSession, Agreement] = WeakKeyDictionary()


def agree(
    way_out: WayOut,
    session: SiteSession,
    instruction: Instruction | None = None,
    now: time | None = None,
) -> Agreement:
    """Return what may be said, if the policy allows the study, and the study the instruction.

    Args:
        now: When it is asked to train; None where it is asked something else.

    Raises:
        PolicyError: The policy does not, or there is none.
        InstructionError: The study does not.
        ModelError: The instruction's arrays are not those of the study.
    """
    agreed = _KEPT.get(session)
    if agreed is None or agreed.policy is not way_out.policy:
        policy = way_out.require_allowed(session.context.study, Facts())
        schemas = SiteSchemas(session, policy)
        # Under patient privacy a refusal by the number of patients would be an exact bit about
        # one of them: the number is held against the policy when a person approves the study.
        counted = session.context.privacy is None
        patients = session.cohorts.train.patient_count if counted else None
        facts = Facts(patients, update_bytes(session.context))
        agreed = _KEPT[session] = Agreement(policy, schemas, facts)
    weight = None
    if instruction is not None:
        agreed.schemas.check_instruction(instruction, trains=now is not None)
        if session.context.privacy is not None:
            weight = largest_weight({**instruction.parameters, **instruction.auxiliary})
    facts = replace(agreed.facts, now=now, largest_weight=weight)
    way_out.require_allowed(session.context.study, facts)
    if session.context.study.continual is not None:
        from wardround.client.policy.known_parent import require_known_parent

        require_known_parent(way_out.site.folder, session.context.study)
    return agreed


def agree_on_pack(way_out: WayOut, session: SiteSession, instruction: Instruction) -> Agreement:
    """Return what may be said of a finished model's evidence, as :func:`agree` does.

    Raises:
        DeniedError: The study promises noise, and the evidence has none.
    """
    agreed, study = agree(way_out, session, instruction), session.context.study
    drop_counted(session, instruction)
    if what_leaves(study).noise_added_by != "nobody":
        msg = "a study that promises noise tells no sums of evidence without it."
        raise DeniedError(msg, (PACKS_RULE,), study.digest)
    return agreed


def check_about(study: Study, digest: str) -> None:
    """Check that a question is about a study, which trains something.

    Raises:
        InstructionError: It is about another one, or the study asks for statistics alone.
    """
    if digest != study.digest or study.statistics.ask:
        msg = f"the question is not about study {study.digest[:12]}, or that trains nothing."
        raise InstructionError(msg)


def forget_agreement(session: SiteSession) -> None:
    """Have what may be said worked out anew: the session's patients are others now."""
    _KEPT.pop(session, None)
