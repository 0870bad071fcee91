"""A private round as a site answers it: one instruction, one reply, one charge.

However often it is asked for, and wherever the site crashes: what was packed before is sent again,
byte for byte; anything new is reserved before it is computed, kept on the disk, and released before
it leaves. New or kept, the guard looks once at a reply, and at the very bytes that leave.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import TypeVar

from flwr.app import RecordDict

from wardround.client.policy.policy import Policy, approved_rounds
from wardround.client.privacy.ledger.budget import Caps
from wardround.client.privacy.ledger.charges import Assignment, Charge, Reservation
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.privacy.ledger.outbox import Outbox, ReplyKey, StoredReply
from wardround.client.session.session import SiteSession
from wardround.client.site.folder import server_of
from wardround.common.files.json_lines import ChainHead
from wardround.common.flower.messages.content import from_bytes, to_bytes
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.masking import StageAsked
from wardround.common.study.plans.patient_privacy import PrivacyPlan

# Another process holds a shared ledger while it works out what fits, and while it writes.
PATIENCE_SECONDS = 60.0
_Seen = TypeVar("_Seen")


def reply_privately(
    session: SiteSession,
    plan: PrivacyPlan,
    instruction: Instruction,
    policy: Policy,
    work: Callable[[ChainHead], RecordDict],
    check: Callable[[RecordDict, tuple[str, ...]], None],
) -> RecordDict:
    """Return the one reply to an instruction of a private study, as it was checked.

    The ledger is open only meanwhile, so that sites may share a process, or move between some. It
    is set aside while the site trains, so that site folders may share a ledger.

    Args:
        work: Trains and packs the reply, which names what was charged last for this server; it is
            called only if no reply is kept, and after it is paid for.
        check: Raises where a reply must not leave; it is given the hashes of the ledger's entries
            that were charged for this server.

    Raises:
        LedgerError: The study does not fit under the site's caps, or the ledger is not whole.
        GuardError: The reply is not what the study implies; it is neither kept nor released.
        RunError: The reply cannot be kept.
    """
    folder, durable = session.site.folder, not policy.simulated
    rounds = approved_rounds(folder, session.context.study)
    caps = caps_of(policy, None if rounds is None else rounds * plan.steps)
    outbox, server = Outbox(folder, durable), server_of(session.site)
    outbox.drop_old(policy.kept_answer_days)
    with PrivacyLedger.open(folder, durable, PATIENCE_SECONDS) as ledger:
        ledger.check_head(server, instruction.ledger)
        patients = {examination.patient for examination in session.cohorts.train.examinations}
        assignment = Assignment(instruction.digest, instruction.run, ledger.snapshot(patients))
        ledger.admit(assignment, plan.planned, plan.clip_norm, caps)
        ledger.bind(instruction.run, server)
        charge = Charge(assignment, instruction.round, instruction.attempt, plan.spend())

        def packed() -> bytes:
            head = ledger.head(server)
            with ledger.set_aside():
                return to_bytes(work(head))

        def examined(reply: bytes) -> RecordDict:
            content = from_bytes(reply)
            check(content, ledger.marks(server))
            return content

        return reply_once(ledger, outbox, charge, caps, packed, examined)


def charge_masked_round(
    session: SiteSession, plan: PrivacyPlan, instruction: Instruction, policy: Policy
) -> None:
    """Charge the one update of a masked round, before it is trained.

    The masked vector of a round leaves once at most, and the site keeps it: there is no reply to
    keep here. Whether it left or not, it stays charged, and a round that a crash has the site train
    again is charged again.

    Raises:
        LedgerError: The study does not fit under the site's caps, or the ledger is not whole.
    """
    folder, durable = session.site.folder, not policy.simulated
    rounds = approved_rounds(folder, session.context.study)
    caps = caps_of(policy, None if rounds is None else rounds * plan.steps)
    server = server_of(session.site)
    with PrivacyLedger.open(folder, durable, PATIENCE_SECONDS) as ledger:
        ledger.check_head(server, instruction.ledger)
        patients = {examination.patient for examination in session.cohorts.train.examinations}
        assignment = Assignment(instruction.digest, instruction.run, ledger.snapshot(patients))
        ledger.admit(assignment, plan.planned, plan.clip_norm, caps)
        ledger.bind(instruction.run, server)
        ledger.reserve(
            Charge(assignment, instruction.round, instruction.attempt, plan.spend()), caps
        )


def release_masked_round(
    session: SiteSession, asked: StageAsked, sent: bytes, policy: Policy
) -> None:
    """Record that the masked vector of a round leaves; once is enough.

    Args:
        sent: The message.

    Raises:
        LedgerError: The ledger is not whole.
    """
    with PrivacyLedger.open(session.site.folder, not policy.simulated, PATIENCE_SECONDS) as ledger:
        about = Assignment(asked.digest, asked.run, "")
        for reservation in ledger.answered(about):
            charge, number = reservation.charge, (asked.round, asked.attempt)
            is_it = charge.assignment.run == asked.run and (charge.round, charge.attempt) == number
            if is_it and not ledger.has_left(reservation):
                ledger.release(reservation, sha256(sent).hexdigest())


def drop_counted(session: SiteSession, instruction: Instruction) -> None:
    """Drop the kept replies that the server says it has counted."""
    if session.context.privacy is not None:
        outbox = Outbox(session.site.folder)
        outbox.drop_counted(instruction.digest, instruction.run, instruction.counted_round)


def reply_once(
    ledger: PrivacyLedger,
    outbox: Outbox,
    charge: Charge,
    caps: Caps,
    work: Callable[[], bytes],
    examine: Callable[[bytes], _Seen],
) -> _Seen:
    """Return what ``examine`` makes of the bytes that may leave as the reply to an instruction.

    An instruction for a round says that the run's earlier replies will not be asked for again: they
    are committed, and dropped from the outbox.

    Args:
        charge: The instruction, and what its reply spends.
        work: Trains and packs the reply; called only if none is kept, and after it is paid for.
        examine: Looks once at the bytes, new or kept, before they are kept or released; raises
            where they must not leave.

    Raises:
        BudgetError: The charge does not fit; nothing was computed.
        LedgerError: The ledger cannot vouch for it; nothing leaves.
        RunError: The reply cannot be kept; nothing leaves.
    """
    _settle(ledger, outbox, charge)
    assignment = charge.assignment
    key = ReplyKey(assignment.study, assignment.run, charge.round, charge.attempt)
    reservation, reply = _kept(ledger, outbox, key, charge)
    if reservation is not None and reply is not None:
        seen = examine(reply.content)
    else:
        reservation = ledger.reserve(charge, caps)
        reply = StoredReply(reservation.number, work())
        seen = examine(reply.content)
        outbox.keep(key, reply)
    ledger.release(reservation, reply.sha256)
    return seen


def _kept(
    ledger: PrivacyLedger, outbox: Outbox, key: ReplyKey, charge: Charge
) -> tuple[Reservation | None, StoredReply | None]:
    """Return what was packed before, and what paid for it: an unpaid reply is none."""
    reply = outbox.find(key)
    return (None, None) if reply is None else (ledger.find(reply.reservation, charge), reply)


def _settle(ledger: PrivacyLedger, outbox: Outbox, charge: Charge) -> None:
    assignment = charge.assignment
    for reservation in ledger.awaiting(assignment):
        if reservation.charge.round < charge.round:
            ledger.commit(reservation)
    outbox.drop_before(assignment.study, assignment.run, charge.round)


def caps_of(policy: Policy, study_steps: int | None = None) -> Caps:
    """Return what a policy allows to be spent, and an approval of the study at hand."""
    return Caps(
        policy.lifetime_epsilon,
        policy.lifetime_delta,
        policy.study_epsilon,
        bind_plans=policy.refused_above_the_cap == "study",
        study_steps=study_steps,
    )
