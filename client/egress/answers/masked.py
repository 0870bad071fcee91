"""A site's part in a masked round: its update, and its measurements, leave in a sum alone."""

import math
from dataclasses import replace
from datetime import date

from flwr.app import RecordDict

from wardround.client.egress.answers.agreement import Agreement, agree, check_about
from wardround.client.egress.answers.evaluation import note_model
from wardround.client.egress.answers.training import (
    count_training,
    may_measure,
    train_in_time,
)
from wardround.client.egress.disclosure import reduce_evaluation
from wardround.client.egress.masking import MaskedSite
from wardround.client.egress.private_round import charge_masked_round, release_masked_round
from wardround.client.egress.way_out import WayOut, event_of
from wardround.client.policy.evaluations import count_evaluation
from wardround.client.policy.rules import EVALUATION_RULE, DeniedError
from wardround.client.session.model_context import ModelContext
from wardround.client.session.session import SiteSession
from wardround.common.flower.messages.content import to_bytes
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.masking import MASK, unpack_asked
from wardround.common.messages.replies import SiteUpdate, pack_evaluation, pack_update
from wardround.common.metrics.sums import MetricSums
from wardround.common.parameters.schema import Parameters
from wardround.common.study.plans.patient_privacy import plan_charges


def answer_masked_training(
    way_out: WayOut, session: SiteSession, instruction: Instruction, agreed: Agreement
) -> RecordDict:
    """Return the keys of a round whose update is trained, and will leave under a mask.

    The update is checked in the clear, as it would be if it left so.

    Raises:
        DeniedError: No more trainings were approved, or this one took too long.
        LedgerError: What the update spends does not fit under the site's caps.
        GuardError: The update is not what the study implies.
        MaskingError: The site is in the round already, in another way.
    """
    study, policy = session.context.study, agreed.policy
    plan = plan_charges(study) if study.privacy.charges_patients else None

    def train() -> SiteUpdate:
        is_measured = may_measure(way_out, session.context, policy)
        if plan is None:
            count_training(way_out, study, instruction, policy)
        else:
            charge_masked_round(session, plan, instruction, policy)
        asked = instruction if is_measured else replace(instruction, validate=False)
        note_model(way_out, instruction, study)
        update = train_in_time(session, asked, False, policy)
        clear = replace(
            update,
            parameters=_as_trained(update, session.context),
            examinations=1,
            updates=0,
            seconds=0.0,
            training_loss=math.nan,
            metrics=None,
        )
        way_out.check(pack_update(clear), agreed.schemas.unmasked_update(instruction))
        return update

    masked = MaskedSite(session, policy, instruction.run)
    content = masked.train(instruction, train)
    schema = masked.schema_of(instruction, "advertise")
    return way_out.leave(content, schema, event_of("masking", instruction))


def answer_masked_evaluation(
    way_out: WayOut, session: SiteSession, instruction: Instruction, agreed: Agreement
) -> RecordDict:
    """Return the keys of a measurement on validation patients, which leaves under a mask.

    It is checked in the clear, as it would be if it left so.

    Raises:
        DeniedError: The study promises noise, or asks for other patients; or the policy allows no
            more measurements.
    """
    study, policy = session.context.study, agreed.policy
    if study.privacy.mode != "none" or instruction.split != "validation":
        msg = "what is measured leaves in a sum of all sites alone, of validation patients."
        raise DeniedError(msg, (EVALUATION_RULE,), study.digest)

    def measure() -> MetricSums | None:
        count_evaluation(way_out.site.folder, study.digest, policy, date.today())
        found = session.evaluate(instruction)
        said = pack_evaluation(reduce_evaluation(found, study, policy))
        way_out.check(said, agreed.schemas.evaluation(instruction))
        sums = found.metrics if policy.metrics == "sums" else None
        return sums if isinstance(sums, MetricSums) else None

    masked = MaskedSite(session, policy, instruction.run, measures=True)
    content = masked.measure(instruction, measure)
    schema = masked.schema_of(instruction, "advertise")
    return way_out.leave(content, schema, event_of("masking", instruction))


def answer_masking(way_out: WayOut, session: SiteSession, content: RecordDict) -> RecordDict:
    """Return the site's message of a later stage of a masked round.

    Args:
        content: Of the server's question.

    Raises:
        InstructionError: It is about another study.
        MaskingError: The server asks for what would tell more than a sum; its name is audited.
    """
    asked, agreed = unpack_asked(content), agree(way_out, session)
    check_about(session.context.study, asked.digest)
    masked = MaskedSite(session, agreed.policy, asked.run, asked.measures)
    answer = masked.answer(asked)
    kind = "update" if asked.stage == MASK else "masking"
    is_charged = session.context.study.privacy.charges_patients and not asked.measures
    if asked.stage == MASK and is_charged:
        release_masked_round(session, asked, to_bytes(answer), agreed.policy)
    return way_out.leave(answer, masked.schema_of(asked, asked.stage), event_of(kind, asked))


def _as_trained(update: SiteUpdate, context: ModelContext) -> Parameters:
    """Return an update's model in the types of the network; one with distributed noise is finer."""
    if context.privacy is None:
        return dict(update.parameters)
    whole, trained = context.network.state_dict(), context.layout
    names = [n for n in trained.shared if n in trained.trainable or n in trained.frozen]
    return {name: update.parameters[name].to(whole[name].dtype) for name in names}
