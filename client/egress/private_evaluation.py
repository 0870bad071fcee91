"""A private evaluation as a site answers it: a study's model of a round, measured once for ever.

The server says which model it is, and is not believed: whatever its weights, a study gets one
answer a round and part of the patients, over all its runs. Asked again by the same run, the site
sends the same bytes; another run, another try or another round than the study's gets none. The
answer is charged to the patients measured, before it is computed.
"""

from collections.abc import Callable
from typing import NoReturn

from flwr.app import RecordDict

from wardround.client.egress.private_round import caps_of
from wardround.client.policy.policy import Policy
from wardround.client.policy.rules import EVALUATION_RULE, DeniedError
from wardround.client.privacy.ledger.charges import Assignment, Charge, Reservation
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.privacy.ledger.outbox import Outbox, ReplyKey, StoredReply
from wardround.client.session import SiteSession
from wardround.common.errors import RunError
from wardround.common.flower.messages.content import from_bytes, to_bytes
from wardround.common.messages.instructions import Instruction
from wardround.common.metrics.noised import NORM_BOUND
from wardround.common.study.plans.patient_privacy import EvaluationPlan
from wardround.common.study.study import Study

_SHOWN = 12  # of a digest


def evaluate_once(
    session: SiteSession,
    plan: EvaluationPlan,
    instruction: Instruction,
    policy: Policy,
    work: Callable[[], RecordDict],
    check: Callable[[RecordDict], None],
) -> RecordDict:
    """Return the one answer to an instruction to evaluate, as it was checked.

    Args:
        work: Measures, adds the noise and packs; called only after it is paid for.
        check: Raises where an answer must not leave.

    Raises:
        DeniedError: It was answered before, or is none of the study's evaluations.
        LedgerError: The study does not fit under the site's caps, or the ledger is not whole.
        GuardError: The answer is not what the study implies; it is neither kept nor released.
        RunError: The answer cannot be kept.
    """
    study, folder, durable = session.context.study, session.site.folder, not policy.simulated
    if instruction.digest != study.digest:  # before anything is charged under its name
        msg = f"the order is for study {instruction.digest[:_SHOWN]}: submit the study again."
        raise RunError(msg)
    if instruction.round > study.federation.rounds:
        _refuse(f"the study has no round {instruction.round}", study)
    outbox, caps = Outbox(folder, durable), caps_of(policy)
    with PrivacyLedger.open(folder, durable) as ledger:
        ledger.check_counter(instruction.ledger.entries, instruction.ledger.hash)
        patients = {one.patient for one in session.measured(instruction).examinations}
        assignment = Assignment(
            instruction.digest, instruction.run, ledger.snapshot(patients), part=plan.part
        )
        charge = Charge(assignment, instruction.round, instruction.attempt, plan.spend())
        key = ReplyKey(instruction.digest, instruction.run, charge.round, charge.attempt, plan.part)
        reservation = _earlier(ledger.answered(assignment), charge, plan, study)
        kept = None if reservation is None else outbox.find(key)
        if reservation is None:
            ledger.admit(assignment, plan.planned, NORM_BOUND, caps)
            reservation = ledger.reserve(charge, caps)
        is_new = kept is None or kept.reservation != reservation.number
        if kept is None or is_new:
            if ledger.has_left(reservation):
                _refuse(f"the answer to round {charge.round} left, and is no longer kept", study)
            # Nothing left under it: what a killed process had drawn is lost, and nobody saw it.
            kept = StoredReply(reservation.number, to_bytes(work()))
        content = from_bytes(kept.content)
        check(content)
        if is_new:
            outbox.keep(key, kept)
        ledger.release(reservation, kept.sha256)
    return content


def _earlier(
    answered: list[Reservation], charge: Charge, plan: EvaluationPlan, study: Study
) -> Reservation | None:
    """Return what paid for this very answer before; None if nothing did.

    Raises:
        DeniedError: Another order for this round was answered, or there is no answer left.
    """
    for reservation in answered:
        before = reservation.charge
        if before.round != charge.round:
            continue
        is_same = (before.assignment.run, before.attempt) == (charge.assignment.run, charge.attempt)
        if is_same and before.spend == charge.spend:
            return reservation
        _refuse(f"round {charge.round} was answered before, to another order", study)
    if len(answered) >= plan.answers:
        _refuse(f"all {plan.answers} answers of the study were given", study)
    return None


def _refuse(fact: str, study: Study) -> NoReturn:
    msg = (
        f"nothing more is said of the patients' measurements in study {study.digest[:_SHOWN]}: "
        f"{fact}. A second answer would tell more of each patient than was promised."
    )
    raise DeniedError(msg, (EVALUATION_RULE,), study.digest)
