"""A site's update of a round: counted or charged, trained in time, reduced, signed and checked."""

import logging
import math
from dataclasses import replace
from datetime import date, datetime

from flwr.app import RecordDict

from wardround.client.egress.answers.agreement import agree
from wardround.client.egress.disclosure import reduce_update
from wardround.client.egress.private_round import reply_privately
from wardround.client.egress.way_out import WayOut, event_of
from wardround.client.policy.evaluations import count_evaluation
from wardround.client.policy.policy import Policy, approved_rounds
from wardround.client.policy.received_models import note_received
from wardround.client.policy.rules import TIME_RULE, DeniedError, Facts
from wardround.client.policy.trained_rounds import count_round
from wardround.client.session.model_context import ModelContext
from wardround.client.session.session import SiteSession
from wardround.client.training.schedule import OvertimeError, TimeLimit
from wardround.common.errors import RunError
from wardround.common.files.json_lines import ChainHead
from wardround.common.flower.messages.content import configs_of
from wardround.common.messages.instructions import NO_LEDGER, Instruction
from wardround.common.messages.replies import SiteUpdate, pack_update
from wardround.common.security.audit_log import Event
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)


def answer_training(
    way_out: WayOut, session: SiteSession, instruction: Instruction, standalone: bool
) -> RecordDict:
    """Return a site's update, if the policy allows the study at this time of day.

    Args:
        standalone: Whether the site trains without others (a baseline).

    Raises:
        PolicyError: The policy does not.
        LedgerError: What the update spends does not fit under the site's caps.
        GuardError: The update is not what the study implies.
    """
    agreed = agree(way_out, session, instruction, datetime.now().time())
    plan, policy, study = session.context.privacy, agreed.policy, session.context.study
    if what_leaves(study).masked:
        from wardround.client.egress.answers.masked import answer_masked_training

        return answer_masked_training(way_out, session, instruction, agreed)
    event = event_of("update", instruction)

    is_measured = may_measure(way_out, session.context, policy)
    asked = instruction if is_measured else replace(instruction, validate=False)

    def work(mark: ChainHead = NO_LEDGER) -> RecordDict:
        update = replace(train_in_time(session, asked, standalone, policy), ledger=mark)
        if not is_measured:
            update = replace(update, training_loss=math.nan)
        packed = pack_update(reduce_update(update, study, policy))
        return _signed(way_out, packed, asked, mark)

    def check(content: RecordDict, ledger: tuple[str, ...]) -> None:
        way_out.check(content, agreed.schemas.update(instruction, ledger))

    if plan is None:
        count_training(way_out, study, instruction, policy)
        return way_out.leave(work(), agreed.schemas.update(instruction), event)
    content = reply_privately(session, plan, instruction, policy, work, check)
    return way_out.write_down(content, event)


def answer_again(way_out: WayOut, study: Study, content: RecordDict) -> RecordDict:
    """Return an update that has passed before, if the policy still allows the study.

    Raises:
        PolicyError: It does not.
        RunError: It is no update of this study.
    """
    way_out.require_allowed(study, Facts(now=datetime.now().time()))
    return way_out.write_down(content, _event_again(content, study))


def count_training(way_out: WayOut, study: Study, instruction: Instruction, policy: Policy) -> None:
    """Count a training that no ledger counts, before it begins.

    Raises:
        DeniedError: No more of them were approved.
    """
    allowed = approved_rounds(way_out.site.folder, study)
    if allowed is not None:
        count_round(way_out.site.folder, instruction, allowed, durable=not policy.simulated)


def may_measure(way_out: WayOut, context: ModelContext, policy: Policy) -> bool:
    """Count the measurements in an update; return whether the policy allows them.

    Raises:
        DeniedError: It does not, and the strategy needs one.
    """
    study = context.study
    if what_leaves(study).noised_metrics:
        return True  # its updates hold none
    try:
        count_evaluation(way_out.site.folder, study.digest, policy, date.today())
    except DeniedError as error:
        if context.plan.aggregation == "fair-mean":  # weighs sites by their loss
            raise
        logger.warning("a round is trained without being measured: %s", error)
        return False
    return True


def train_in_time(
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


def _signed(
    way_out: WayOut, content: RecordDict, instruction: Instruction, ledger: ChainHead
) -> RecordDict:
    """Return an update with what a hospital signs of it; a simulated site signs nothing."""
    if way_out.is_simulated:
        return content
    from wardround.client.egress.round_receipt import received_model, sign_update

    folder = way_out.site.folder
    signed = sign_update(content, instruction, ledger.hash, folder, way_out.log)
    note_received(folder, instruction.digest, received_model(signed))
    return signed


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
