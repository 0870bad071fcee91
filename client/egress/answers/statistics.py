"""The statistics of a site as it answers them: one answer a study, for ever.

Under privacy for patients it is an evaluation's answer: charged to the training patients, noised,
kept. Otherwise it lies in ``statistics/`` of the site folder before it leaves, one file a study,
and is never computed anew: two answers from data that changed in between would differ by the
patients who came or went. How many files there are is how many studies were ever told.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

from flwr.app import RecordDict

from wardround.client.data.statistics import Measured, measure_moments, measure_statistics
from wardround.client.egress.answers.statistics_disclosure import (
    add_noise,
    reduce_moments,
    reduce_statistics,
    statistics_message,
)
from wardround.client.egress.guard import MessageSchema
from wardround.client.egress.message_schema import InstructionError
from wardround.client.egress.private_evaluation import evaluate_once
from wardround.client.policy.policy import Policy
from wardround.client.policy.rules import STATISTICS_RULE, DeniedError
from wardround.client.session.session import SiteSession
from wardround.common.errors import PolicyError
from wardround.common.files.atomic import flush_folder, make_private_folder, replace_file
from wardround.common.files.lock import held_alone
from wardround.common.flower.messages.content import kept_content, to_bytes
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.statistics import SiteStatistics, pack_statistics
from wardround.common.runtime.printable import printable
from wardround.common.study.plans.patient_privacy import EvaluationPlan
from wardround.common.study.plans.statistics import plan_statistics
from wardround.common.study.study import Study

STATISTICS_FOLDER = "statistics"
_SUFFIX = ".answer"
_Check = Callable[[RecordDict, MessageSchema], None]


def answer_statistics(
    session: SiteSession, digest: str, policy: Policy, check: _Check
) -> RecordDict:
    """Return the one answer of a site to a study that asks for statistics, as it was checked.

    Args:
        digest: Which study the server asks about.
        check: Raises where an answer must not leave.

    Raises:
        InstructionError: The study asks for none, or another study is meant.
        DeniedError: As many studies as the policy allows were told.
        LedgerError: The study does not fit under the site's caps, or the ledger is not whole.
        GuardError: The answer is not what the study implies; it is neither kept nor released.
        PolicyError: The answer cannot be kept.
    """
    study, name = session.context.study, session.site.name
    if digest != study.digest or not study.statistics.ask:
        msg = (
            f"statistics are asked for study {printable(digest, 16)}, and this site works on "
            f"{study.digest[:12]}: a study asks for them with statistics.ask = true."
        )
        raise InstructionError(msg)
    plan = plan_statistics(study)
    schema = statistics_message(name, study, policy, plan is not None)
    if plan is None:
        return _recorded(session, policy, lambda content: check(content, schema))
    return _once_with_noise(session, plan, policy, lambda content: check(content, schema))


def _once_with_noise(
    session: SiteSession,
    plan: EvaluationPlan,
    policy: Policy,
    check: Callable[[RecordDict], None],
) -> RecordDict:
    study = session.context.study

    def work() -> RecordDict:
        return pack_statistics(add_noise(_measure(session), session.site.name, study, plan))

    # Of no run: whoever asks, and however often, it is the same order and has the same answer.
    run = hashlib.sha256(f"statistics of {study.digest}".encode()).hexdigest()[:32]
    order = Instruction(study.digest, run, 0, {})
    return evaluate_once(session, plan, order, policy, work, check)


def _recorded(
    session: SiteSession, policy: Policy, check: Callable[[RecordDict], None]
) -> RecordDict:
    study, folder = session.context.study, session.site.folder / STATISTICS_FOLDER
    place, durable = folder / f"{study.digest}{_SUFFIX}", not policy.simulated
    try:
        make_private_folder(folder)
        with held_alone(folder):
            if place.exists():
                answer = kept_content(place)
                check(answer)
                return answer
            _require_room(folder, policy, study)
            said = _reduced(session, policy)
            answer = pack_statistics(said)
            check(answer)
            replace_file(place, to_bytes(answer), durable=durable)
            if durable:
                flush_folder(folder.parent)
            return answer
    except OSError as error:
        msg = (
            f"the statistics cannot be kept ({error.strerror}), so they do not leave: make room "
            "on the site's disk."
        )
        raise PolicyError(msg) from None


def _reduced(session: SiteSession, policy: Policy) -> SiteStatistics:
    study, name = session.context.study, session.site.name
    if study.statistics.combat:
        sums = measure_moments(session.cohorts.train, study)
        return reduce_moments(sums, name, study, policy)
    return reduce_statistics(_measure(session), name, study, policy)


def _require_room(folder: Path, policy: Policy, study: Study) -> None:
    told = sum(1 for _ in folder.glob(f"*{_SUFFIX}"))
    if policy.simulated or told < policy.largest_statistics:
        return
    msg = (
        f"{told} studies were told statistics of this site without noise, and largest_statistics = "
        f"{policy.largest_statistics} in its policy.toml allows no more: each tells more of single "
        "patients. Ask with privacy.mode = 'patient', or raise it."
    )
    raise DeniedError(msg, (STATISTICS_RULE,), study.digest)


def _measure(session: SiteSession) -> Measured:
    return measure_statistics(session.site, session.cohorts.train, session.context.study)
