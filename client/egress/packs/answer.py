"""The evidence of a site as it answers it: one batch a run, at most two exchanges, kept for good.

An answer lies in ``packs/`` of the site folder before it leaves. Its name says to which model and,
in the second exchange, to which merged histograms it is the answer: the same question has the same
bytes, another one for the same run has none. How many runs of a study are told is the policy's.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from flwr.app import RecordDict

from wardround.client.egress.guard import (
    Cells,
    Count,
    Exactly,
    MessageSchema,
    Rounded,
    Rule,
)
from wardround.client.egress.message_schema import DECIMALS, InstructionError
from wardround.client.egress.packs.disclosure import (
    placements,
    reduce_packs,
    told_counts,
    told_patients,
)
from wardround.client.policy.evaluations import count_evaluation
from wardround.client.policy.policy import Policy
from wardround.client.policy.rules import PACKS_RULE, DeniedError
from wardround.client.session.packs import measure_cases, measure_packs
from wardround.client.session.session import SiteSession
from wardround.client.training.case_predictions import ClassifiedCases
from wardround.common.errors import GuardError, PolicyError, WardroundError
from wardround.common.files.atomic import flush_folder, make_private_folder, replace_file
from wardround.common.files.lock import held_alone
from wardround.common.flower.messages.content import kept_content, to_bytes
from wardround.common.messages.instructions import Instruction
from wardround.common.messages.packs import (
    CELL,
    FACTS,
    PATIENTS,
    RECORD,
    TELLS,
    SitePacks,
    SitePlacements,
    pack_packs,
    pack_placements,
    unpack_packs,
    unpack_placements,
)
from wardround.common.metrics.packs.intervals import IntervalPack, PlacementSums
from wardround.common.metrics.packs.registry import pack_schema
from wardround.common.metrics.packs.score_counts import ScoreCounts
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import ArraySpec
from wardround.common.study.study import Study

PACKS_FOLDER = "packs"
_FIRST, _SECOND = ".pack", ".placements"
_SHOWN = 12  # of a digest
_KEY = 32  # digits of a question's digest in a file name
_Check = Callable[[RecordDict, MessageSchema], None]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the answers of one run lie."""

    folder: Path
    study: str
    run: str

    def kept(self, suffix: str) -> list[Path]:
        """Return the answers of this run."""
        return sorted(self.folder.glob(f"{self.study}-{self.run}-*{suffix}"))

    def named(self, key: str, suffix: str) -> Path:
        """Return where the answer to a question goes."""
        return self.folder / f"{self.study}-{self.run}-{key[:_KEY]}{suffix}"

    def runs(self) -> int:
        """Return of how many runs of the study a pack was told."""
        return sum(1 for _ in self.folder.glob(f"{self.study}-*{_FIRST}"))


def answer_packs(
    session: SiteSession, instruction: Instruction, policy: Policy, check: _Check
) -> RecordDict:
    """Return a site's one answer to the first exchange, as it was checked.

    Args:
        instruction: Held against the study already, its digest and round too.
        check: Raises where an answer must not leave.

    Raises:
        InstructionError: The study asks for no packs.
        DeniedError: The policy lets none out, or as many as it allows were told.
        GuardError: The answer is not what the study implies; it is neither kept nor released.
        PolicyError: The answer cannot be kept.
    """
    study, name, least = session.context.study, session.site.name, policy.smallest_cell
    _require_pack(instruction, study)
    if not set(study.evaluation.pack) & set(policy.packs):
        msg = (
            "the study asks for evidence, and packs in the site's policy.toml lets none of it out: "
            "add what may be told."
        )
        raise DeniedError(msg, (PACKS_RULE,), study.digest)
    schema = packs_message(name, instruction, study, policy)

    def work() -> RecordDict:
        count_evaluation(session.site.folder, study.digest, policy, date.today())
        measured = measure_packs(session, instruction)
        said = SitePacks(
            site=name,
            digest=study.digest,
            run=instruction.run,
            round=instruction.round,
            patients=told_patients(measured.cases, least),
            cell=least,
            packs=reduce_packs(measured, study, least, policy.packs),
            withheld=frozenset(study.evaluation.pack) - frozenset(policy.packs),
        )
        return pack_packs(said)

    def guarded(content: RecordDict) -> None:
        check(content, schema)
        _require_true(lambda: unpack_packs(content, study))

    place = _place(session, instruction)
    return _once(place, (_key(instruction), _FIRST), policy, work, guarded)


def answer_placements(
    session: SiteSession,
    instruction: Instruction,
    merged: ScoreCounts,
    policy: Policy,
    check: _Check,
) -> RecordDict:
    """Return a site's one answer to the second exchange, as it was checked.

    Args:
        merged: The histograms of all sites together.

    Raises:
        InstructionError: The study has no second exchange, the first did not come before, or was
            about another model, or the histograms do not hold what this site told.
        DeniedError: It was given, to other histograms.
        GuardError: The answer is not what the study implies; it is neither kept nor released.
        PolicyError: The answer cannot be kept.
    """
    study, name, least = session.context.study, session.site.name, policy.smallest_cell
    _require_pack(instruction, study)
    if "intervals" not in study.evaluation.pack or not study.task.classifies:
        msg = "the study has no second exchange: it names no pack 'intervals' of a classification."
        raise InstructionError(msg)
    place = _place(session, instruction)
    first = place.named(_key(instruction), _FIRST)
    if not first.exists():
        msg = (
            "placements are asked for before the packs of this very model were told: ask for the "
            "packs first."
        )
        raise InstructionError(msg)
    told = unpack_packs(kept_content(first), study).packs["intervals"]
    _require_ours(told, merged)
    schema = placements_message(name, instruction, study, least)

    def work() -> RecordDict:
        cases = measure_cases(session, instruction)
        sums = PlacementSums.empty(study.class_count)
        if isinstance(cases, ClassifiedCases) and _is_as_told(cases, told, study, least):
            sums = placements(cases, merged, study, least)
        said = SitePlacements(name, study.digest, instruction.run, instruction.round, sums)
        return pack_placements(said)

    def guarded(content: RecordDict) -> None:
        check(content, schema)
        _require_true(lambda: unpack_placements(content, study))

    return _once(place, (_key(instruction, merged), _SECOND), policy, work, guarded)


def _require_true(read: Callable[[], object]) -> None:
    """Check that an answer can be read as sums of patients: other numbers do not fit together.

    Raises:
        GuardError: It cannot.
    """
    try:
        read()
    except WardroundError:
        msg = (
            "the evidence holds numbers that are no sums of patients: it stays here. Install the "
            "version of wardround that was approved."
        )
        raise GuardError(msg) from None


def _require_pack(instruction: Instruction, study: Study) -> None:
    if not study.evaluation.pack:
        msg = "packs of evidence are asked for, and the study names none: evaluation.pack does."
        raise InstructionError(msg)
    if instruction.split != "test":
        msg = f"packs are of test patients, and of {instruction.split} ones they are asked for."
        raise InstructionError(msg)


def _require_ours(told: object, merged: ScoreCounts) -> None:
    """Check that merged histograms hold at least what this site told: they are then not foreign."""
    counts = told.counts if isinstance(told, IntervalPack) else None
    if (
        counts is None
        or (merged.positives < counts.positives).any()
        or (merged.negatives < counts.negatives).any()
    ):
        msg = (
            "the merged histograms do not hold what this site told: they are not those of its run."
        )
        raise InstructionError(msg)


def _is_as_told(cases: ClassifiedCases, told: object, study: Study, least: int) -> bool:
    """Return whether the patients are still those of the first exchange, as far as it told."""
    counts, _ = told_counts(cases, study, least)
    before = told.counts if isinstance(told, IntervalPack) else None
    return (
        before is not None
        and bool((counts.positives == before.positives).all())
        and bool((counts.negatives == before.negatives).all())
    )


def _place(session: SiteSession, instruction: Instruction) -> _Place:
    return _Place(session.site.folder / PACKS_FOLDER, session.context.study.digest, instruction.run)


def _key(instruction: Instruction, merged: ScoreCounts | None = None) -> str:
    """Return the digest of a question: which model of which round, and which histograms."""
    seen = hashlib.sha256(f"{instruction.round} {digest(instruction.parameters)}".encode())
    if merged is not None:
        seen.update(merged.positives.tobytes())
        seen.update(merged.negatives.tobytes())
    return seen.hexdigest()


def _once(
    place: _Place,
    name: tuple[str, str],
    policy: Policy,
    work: Callable[[], RecordDict],
    check: Callable[[RecordDict], None],
) -> RecordDict:
    path, durable = place.named(*name), not policy.simulated
    try:
        make_private_folder(place.folder)
        with held_alone(place.folder):
            if path.exists():
                answer = kept_content(path)
                _check_again(answer, check, place)
                return answer
            _require_room(place, name[1], policy)
            answer = work()
            check(answer)
            replace_file(path, to_bytes(answer), durable=durable)
            if durable:
                flush_folder(place.folder.parent)
            return answer
    except OSError as error:
        msg = (
            f"the evidence cannot be kept ({error.strerror}), so it does not leave: make room on "
            "the site's disk."
        )
        raise PolicyError(msg) from None


def _check_again(answer: RecordDict, check: Callable[[RecordDict], None], place: _Place) -> None:
    """Check that a kept answer is still what the policy lets out.

    Raises:
        DeniedError: It is not.
    """
    try:
        check(answer)
    except GuardError:
        msg = (
            f"evidence of run {place.run[:_SHOWN]} was told when the site's policy.toml was "
            "another one, and a run has one answer: it is not told once more."
        )
        raise DeniedError(msg, (PACKS_RULE,), place.study) from None


def _require_room(place: _Place, suffix: str, policy: Policy) -> None:
    if place.kept(suffix):
        msg = (
            f"evidence of run {place.run[:_SHOWN]} of study {place.study[:_SHOWN]} was told, of "
            "another model or against other histograms: a run has one answer."
        )
        raise DeniedError(msg, (PACKS_RULE,), place.study)
    most = policy.largest_packs_of_a_study
    if suffix != _FIRST or policy.simulated or place.runs() < most:
        return
    msg = (
        f"evidence of {most} runs of study {place.study[:_SHOWN]} was told, and "
        "largest_packs_of_a_study in the site's policy.toml allows no more: each model tells more "
        "of the same test patients. Raise it, or submit another study."
    )
    raise DeniedError(msg, (PACKS_RULE,), place.study)


# --- What the guard lets out
def packs_message(
    name: str, instruction: Instruction, study: Study, policy: Policy
) -> MessageSchema:
    """Return exactly what an answer to the first exchange may hold."""
    arrays, least = pack_schema(study), policy.smallest_cell
    facts: dict[str, Rule] = {PATIENTS: Count(least), CELL: Exactly(least)}
    facts |= {f"{TELLS}{one}": Exactly(int(one in policy.packs)) for one in study.evaluation.pack}
    cells = {f"{RECORD}/{spec.name}": _rule(spec, least) for spec in arrays}
    header = {"header": _header(name, instruction, study)}
    return MessageSchema(header, {FACTS: facts}, {RECORD: arrays}, cells=cells)


def placements_message(
    name: str, instruction: Instruction, study: Study, least: int
) -> MessageSchema:
    """Return exactly what an answer to the second exchange may hold."""
    empty = PlacementSums.empty(study.class_count).to_arrays("")
    arrays = tuple(ArraySpec(key, one.shape, str(one.dtype)) for key, one in empty.items())
    cells = {f"{RECORD}/{spec.name}": _rule(spec, least) for spec in arrays}
    header = {"header": _header(name, instruction, study)}
    return MessageSchema(header, {}, {RECORD: arrays}, cells=cells)


def _header(name: str, instruction: Instruction, study: Study) -> dict[str, Rule]:
    return {
        "site": Exactly(name),
        "digest": Exactly(study.digest),
        "run": Exactly(instruction.run),
        "round": Exactly(instruction.round),
    }


def _rule(spec: ArraySpec, least: int) -> Cells | Rounded:
    """Return what an array may hold: multiples of the smallest cell, or rounded means."""
    if spec.dtype == "int64":
        return Cells(float(least))
    return Rounded(DECIMALS if least > 1 else None)
