"""A private round as a site answers it: charged before it is computed, and computed once."""

from collections.abc import Callable

from flwr.app import RecordDict

from wardround.client.policy.policy import Policy
from wardround.client.privacy.ledger.budget import Caps
from wardround.client.privacy.ledger.charges import Assignment, Charge
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.privacy.ledger.outbox import Outbox
from wardround.client.privacy.ledger.reply_once import reply_once
from wardround.client.session import SiteSession
from wardround.common.flower.messages.serialisation import from_bytes, to_bytes
from wardround.common.messages.instructions import Instruction
from wardround.common.study.plans.patient_privacy import PrivacyPlan


def reply_privately(
    session: SiteSession,
    plan: PrivacyPlan,
    instruction: Instruction,
    policy: Policy,
    work: Callable[[PrivacyLedger], RecordDict],
) -> tuple[RecordDict, tuple[str, ...]]:
    """Return the one answer to an order of a private study, and the hashes of the ledger's entries.

    The ledger is open only meanwhile, so that sites may share a process, or move between some.

    Args:
        work: Trains and packs the answer; it is called only if no answer is kept, and after it is
            paid for.

    Raises:
        LedgerError: The study does not fit under the site's caps, or the ledger is not whole.
        RunError: The answer cannot be kept.
    """
    folder, durable, caps = session.site.folder, not policy.simulated, caps_of(policy)
    outbox = Outbox(folder, durable)
    with PrivacyLedger.open(folder, durable) as ledger:
        ledger.check_counter(instruction.ledger.entries, instruction.ledger.hash)
        patients = {examination.patient for examination in session.cohorts.train.examinations}
        assignment = Assignment(instruction.digest, instruction.run, ledger.snapshot(patients))
        ledger.admit(assignment, plan.planned, plan.clip_norm, caps)
        charge = Charge(assignment, instruction.round, instruction.attempt, plan.spend())

        def packed() -> bytes:
            return to_bytes(work(ledger))

        reply = reply_once(ledger, outbox, charge, caps, packed)
        return from_bytes(reply), ledger.hashes


def caps_of(policy: Policy) -> Caps:
    """Return what a policy allows to be spent."""
    return Caps(
        policy.lifetime_epsilon,
        policy.lifetime_delta,
        policy.study_epsilon,
        bind_plans=policy.refused_above_the_cap == "study",
    )
