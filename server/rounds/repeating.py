"""What a repeat begins with, and the certificate of what it came to: on a server and in simulation.

The run that is repeated is read alone: its commits, its history and its record stay as they are.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import wardround
from wardround.common.files.atomic import replace_file
from wardround.common.messages.instructions import new_run
from wardround.common.parameters.arithmetic import digest as parameters_digest
from wardround.common.runtime.code_digest import code_digest
from wardround.common.security.lineage import LINEAGE_FILE, line_hash, open_line
from wardround.common.security.withdrawal.certificate import (
    Checkpoint,
    RepeatedRound,
    RevokedModel,
    RunRounds,
    WithdrawalCertificate,
)
from wardround.common.security.withdrawal.request import SignedRequest
from wardround.common.study.study import Study
from wardround.server.checkpoints.store import CheckpointStore, Commit, Progress
from wardround.server.rounds.lineage import read_lines
from wardround.server.sites.withdrawal import WithdrawalPlan, begin_store
from wardround.server.sites.withdrawal_requests import RepeatRecord


@dataclass(frozen=True, slots=True)
class Parent:
    """The run that is repeated.

    Attributes:
        name: Of its folder.
        store: Its commits.
        released: Digest and round of the model that it ended with; None while it has none.
    """

    name: str
    store: CheckpointStore
    released: tuple[str, int] | None = None


def prepare_repeat(
    parent: Parent,
    target: CheckpointStore,
    plan: WithdrawalPlan,
    request: SignedRequest,
    study: Study,
) -> RepeatRecord:
    """Write the commits, the history and the signed record that a repeat goes on from.

    Args:
        target: Of the repeat; new.
        study: The one that repeats.

    Returns:
        What the repeat's folder has to say of it.

    Raises:
        RunError: A commit is absent or damaged.
    """
    source = parent.store
    begin_store(source, target, plan, study.digest, new_run())
    if not plan.after_round:
        target.pin(Progress(study.digest, "", 0))  # the certificate names it
    lines = read_lines(source.folder / LINEAGE_FILE)[: plan.after_round + 1]
    if plan.after_round and len(lines) == plan.after_round + 1:
        content = b"".join(line + b"\n" for line in lines)
        replace_file(target.folder / LINEAGE_FILE, content)
    latest = source.latest()
    progress = Progress("", "", 0) if latest is None else latest.progress
    model, number = parent.released or (_model_of(latest), progress.round)
    return RepeatRecord(
        request=request.line.decode("ascii"),
        site=plan.site,
        without=plan.without,
        parent_run=parent.name,
        parent=RunRounds(study=progress.digest, run=progress.run, rounds=progress.round),
        checkpoint=_checkpoint(target, lines, plan.after_round) if plan.after_round else None,
        revoked=(RevokedModel(study=progress.digest, model=model, round=number),),
        is_exact=plan.is_exact,
        why=plan.why,
        first_rounds=dict(plan.first_rounds),
        seconds=plan.seconds,
    )


def certificate_of(
    record: RepeatRecord,
    study: Study,
    checkpoints: Path,
    kept: Commit,
    now: Callable[[], float] = time.time,
) -> WithdrawalCertificate:
    """Return what is to be signed of a repeat that has finished.

    Args:
        study: The one that repeats.
        checkpoints: The folder of the repeat's commits.
        kept: The model that it ended with.

    Raises:
        RunError: The commit that it began with is damaged.
    """
    store, lines = CheckpointStore(checkpoints), read_lines(checkpoints / LINEAGE_FILE)
    checkpoint = record.checkpoint or _checkpoint(store, lines[:1], 0)
    latest = store.latest()
    done = kept.progress.round if latest is None else latest.progress.round
    begin = checkpoint.round
    since = lines[begin + 1 : done + 1] if len(lines) > done else []
    return WithdrawalCertificate(
        model=parameters_digest(kept.parameters),
        request=record.request,
        parent=record.parent,
        repeat=RunRounds(study=study.digest, run=kept.progress.run, rounds=done),
        checkpoint=checkpoint,
        repeated=[
            RepeatedRound(round=begin + 1 + number, line=line_hash(line))
            for number, line in enumerate(since)
        ],
        sites=sorted({key for line in since for key in _keys_of(line)}),
        revoked=list(record.revoked),
        is_exact=record.is_exact,
        why=list(record.why),
        wardround=f"{wardround.__version__}, code {code_digest()}",
        time=int(now()),
    )


def _checkpoint(store: CheckpointStore, lines: list[bytes], number: int) -> Checkpoint:
    """Return a commit as a certificate names it.

    Args:
        lines: Of the signed record, up to that round; fewer where there is none.
    """
    commit = store.load(number)
    line = line_hash(lines[-1]) if len(lines) == number + 1 else ""
    return Checkpoint(round=number, model=parameters_digest(commit.parameters), line=line)


def _model_of(commit: Commit | None) -> str:
    return "" if commit is None else parameters_digest(commit.evaluated)


def _keys_of(line: bytes) -> list[str]:
    return [str(key) for key in open_line(line)[0]["predicate"]["sites"]]
