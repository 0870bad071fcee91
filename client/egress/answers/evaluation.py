"""A site's measurements of a model: counted by the policy, or charged and noised, then reduced."""

from datetime import date

from flwr.app import RecordDict

from wardround.client.egress.answers.agreement import Agreement, agree
from wardround.client.egress.disclosure import reduce_evaluation
from wardround.client.egress.private_evaluation import evaluate_once
from wardround.client.egress.private_round import drop_counted
from wardround.client.egress.way_out import WayOut, event_of
from wardround.client.policy.evaluations import count_evaluation
from wardround.client.policy.received_models import note_received
from wardround.client.policy.rules import EVALUATION_RULE, DeniedError
from wardround.client.session.session import SiteSession
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.replies import pack_evaluation
from wardround.common.parameters.arithmetic import digest
from wardround.common.study.plans.patient_privacy import MeasuredPart, plan_evaluation
from wardround.common.study.plans.what_leaves import what_leaves
from wardround.common.study.study import Study

# Beside those of a study's rounds: more than any policy lets be measured of one study in years.
_MORE_MODELS = 10_000


def answer_evaluation(
    way_out: WayOut, session: SiteSession, instruction: Instruction
) -> RecordDict:
    """Return a site's evaluation, if the policy allows the study, and another of it.

    A simulated site, whose patients are nobody's, tells its test results without noise: a report
    is about how good a model is. The model is chosen by what a hospital would tell.

    Raises:
        PolicyError: The policy does not.
        DeniedError: Under masks, what is asked leaves in no sum; :func:`answer_masked_evaluation`.
        GuardError: The evaluation is not what the study implies.
    """
    agreed, event = agree(way_out, session, instruction), event_of("evaluation", instruction)
    study, policy = session.context.study, agreed.policy
    drop_counted(session, instruction)
    # Also where nothing is told of it: a study may go on from a model that a site was sent.
    note_model(way_out, instruction, study)
    is_shown = policy.simulated and instruction.split == "test"
    if what_leaves(study).masked and not is_shown:
        from wardround.client.egress.answers.masked import answer_masked_evaluation

        return answer_masked_evaluation(way_out, session, instruction, agreed)
    if what_leaves(study).noised_metrics and not is_shown:
        return way_out.write_down(_answer_privately(way_out, session, instruction, agreed), event)
    count_evaluation(way_out.site.folder, study.digest, policy, date.today())
    said = reduce_evaluation(session.evaluate(instruction), study, policy)
    return way_out.leave(pack_evaluation(said), agreed.schemas.evaluation(instruction), event)


def note_model(way_out: WayOut, instruction: Instruction, study: Study) -> None:
    """Write down which model came, where no signature of the round says so.

    Raises:
        RunError: More came than the study's rounds account for: a disk has an end.
    """
    if not way_out.is_simulated:
        received, most = digest(instruction.parameters), 4 * study.federation.rounds + _MORE_MODELS
        note_received(way_out.site.folder, instruction.digest, received, most)


def _answer_privately(
    way_out: WayOut, session: SiteSession, instruction: Instruction, agreed: Agreement
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
        way_out.check(content, agreed.schemas.noised_evaluation(instruction))

    return evaluate_once(session, plan, instruction, policy, work, check)
