"""A private evaluation as a site answers it: a study's model of a round, measured once for ever.

So are the statistics from which a study is planned: one answer, about the training patients.

The server says which model it is, and is not believed: whatever its weights, a study gets one
answer a round and part of the patients for each time that it was approved, over all its runs. Asked
again by the same run, the site sends the same bytes; another try or another round than the study's
gets none. The answer is charged to the patients measured, before it is computed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from flwr.app import RecordDict

from wardround.client.egress.private_round import PATIENCE_SECONDS, caps_of
from wardround.client.policy.policy import Policy, approved_rounds
from wardround.client.policy.rules import EVALUATION_RULE, DeniedError
from wardround.client.privacy.ledger.charges import TRAIN, Assignment, Charge, Reservation
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.privacy.ledger.outbox import Outbox, ReplyKey, StoredReply
from wardround.client.session.session import SiteSession
from wardround.client.site.folder import server_of
from wardround.common.flower.messages.content import from_bytes, to_bytes
from wardround.common.messages.instructions import Instruction
from wardround.common.metrics.noised.encoding import NORM_BOUND
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
        instruction: Held against the study already, its digest and round too.
        work: Measures, adds the noise and packs; called only after it is paid for.
        check: Raises where an answer must not leave.

    Raises:
        DeniedError: It was answered before, or is none of the study's evaluations.
        LedgerError: The study does not fit under the site's caps, or the ledger is not whole.
        GuardError: The answer is not what the study implies; it is neither kept nor released.
        RunError: The answer cannot be kept.
    """
    study, folder, durable = session.context.study, session.site.folder, not policy.simulated
    outbox, caps, server = Outbox(folder, durable), caps_of(policy), server_of(session.site)
    approvals = _approvals(folder, study)
    with PrivacyLedger.open(folder, durable, PATIENCE_SECONDS) as ledger:
        ledger.check_head(server, instruction.ledger)
        trained = plan.part == TRAIN
        cohort = session.cohorts.train if trained else session.measured(instruction)
        patients = {one.patient for one in cohort.examinations}
        assignment = Assignment(
            instruction.digest, instruction.run, ledger.snapshot(patients), part=plan.part
        )
        charge = Charge(assignment, instruction.round, instruction.attempt, plan.spend())
        key = ReplyKey(instruction.digest, instruction.run, charge.round, charge.attempt, plan.part)
        reservation = _earlier(ledger.answered(assignment), charge, plan, study, approvals)
        kept = None if reservation is None else outbox.find(key)
        if reservation is None:
            ledger.admit(assignment, plan.planned, NORM_BOUND, caps)
            ledger.bind(instruction.run, server)
            reservation = ledger.reserve(charge, caps)
        is_new = kept is None or kept.reservation != reservation.number
        if kept is None or is_new:
            if ledger.has_left(reservation):
                _refuse(f"the answer to round {charge.round} left, and is no longer kept", study)
            # Nothing left under it: what a killed process had drawn is lost, and nobody saw it.
            with ledger.set_aside():
                content = to_bytes(work())
            kept = StoredReply(reservation.number, content)
        answer = from_bytes(kept.content)
        check(answer)
        if is_new:
            outbox.keep(key, kept)
        ledger.release(reservation, kept.sha256)
    return answer


def _earlier(
    answered: list[Reservation],
    charge: Charge,
    plan: EvaluationPlan,
    study: Study,
    approvals: int,
) -> Reservation | None:
    """Return what paid for this very answer before; None if nothing did.

    Args:
        approvals: How often the study was approved: so many answers there are to a round.

    Raises:
        DeniedError: Another order for this round was answered, or there is no answer left.
    """
    run, of_round = charge.assignment.run, [r for r in answered if r.charge.round == charge.round]
    for reservation in of_round:
        before = reservation.charge
        if before.assignment.run != run:
            continue
        if before.attempt == charge.attempt and before.spend == charge.spend:
            return reservation
        _refuse(f"round {charge.round} was answered before, to another order", study)
    if len(of_round) >= approvals:
        _refuse(f"round {charge.round} was answered before, to another run", study)
    if len(answered) >= plan.answers * approvals:
        _refuse(f"all {plan.answers * approvals} answers of the study were given", study)
    return None


def _approvals(folder: Path, study: Study) -> int:
    """Return how often a study was approved here; a simulated site answers as if once."""
    rounds = approved_rounds(folder, study)
    return 1 if rounds is None else rounds // study.federation.rounds


def _refuse(fact: str, study: Study) -> NoReturn:
    msg = (
        f"nothing more is said of the patients' measurements in study {study.digest[:_SHOWN]}: "
        f"{fact}. A second answer would tell more of each patient than was promised."
    )
    raise DeniedError(msg, (EVALUATION_RULE,), study.digest)
