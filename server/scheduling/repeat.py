"""A run that repeats another one without a site that left, or without patients of one.

The parent's folder is read, and marked as revoked; its commits, history and record stay as they
are. Whatever is killed on the way, the same command goes on: the repeat is queued once, whole.
"""

import hashlib
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.common.errors import InputError
from wardround.common.files.atomic import make_private_folder, replace_file
from wardround.common.security.withdrawal.certificate import (
    CERTIFICATE_FILE,
    sign_certificate,
)
from wardround.common.security.withdrawal.request import (
    SignedRequest,
    WithdrawalRequest,
    Without,
    sign_request,
)
from wardround.common.study.study import Study
from wardround.server.checkpoints.release import read_release, revoke
from wardround.server.checkpoints.store import CheckpointStore, Commit
from wardround.server.identity.lineage_key import open_lineage_key
from wardround.server.identity.membership import members
from wardround.server.rounds.repeating import Parent, certificate_of, prepare_repeat
from wardround.server.scheduling.folder import RunFolder, RunStatus
from wardround.server.scheduling.queue import stop_run
from wardround.server.scheduling.store import RunRow, all_runs, find_run
from wardround.server.scheduling.submission import submit_study
from wardround.server.sites.withdrawal import (
    WithdrawalPlan,
    plan_withdrawal,
    require_no_parent_of,
    study_without,
)
from wardround.server.sites.withdrawal_requests import (
    find_request,
    read_repeat,
    write_repeat,
)

_PREPARING = ".preparing"


@dataclass(frozen=True, slots=True)
class Proposed:
    """A withdrawal before it is begun.

    Attributes:
        request: Of the site; None where it has not asked.
        begun: The run that repeats already; "" where none does.
    """

    run: str
    study: Study
    plan: WithdrawalPlan
    request: SignedRequest | None
    begun: str


def propose(folder: Path, run: str, site: str, without: Without) -> Proposed:
    """Return what taking a site out of a run would mean; nothing is changed.

    Raises:
        InputError: There is no such run, or nothing of the site in it, or too few are left.
        RunError: The run has no commit.
    """
    row = find_run(folder, run)
    parent = RunFolder(folder, row.run)
    study = parent.study()
    plan = plan_withdrawal(CheckpointStore(parent.checkpoints), study, site, without)
    require_no_parent_of(site, _parents(folder, study))
    request = find_request(folder, study.digest, site, without)
    return Proposed(row.run, study, plan, request, _begun(folder, row.run, site, without))


def _parents(folder: Path, study: Study) -> Iterator[tuple[str, CheckpointStore]]:
    """Yield the runs of this server that a study goes on from, the nearest first."""
    seen = set[str]()
    while study.continual is not None and (digest := study.continual.parent) not in seen:
        if digest is None:
            return
        seen.add(digest)
        rows = [row for row in all_runs(folder) if row.digest == digest]
        if not rows:
            return
        for row in rows:
            yield row.run, CheckpointStore(RunFolder(folder, row.run).checkpoints)
        study = RunFolder(folder, rows[-1].run).study()


def begin_repeat(folder: Path, proposed: Proposed) -> RunRow:
    """Revoke a run's model, stop the run, and queue the one that repeats it.

    Raises:
        InputError: A study like the repeat is queued already.
        RunError: Database or folder cannot be written, or a commit is damaged.
    """
    parent, plan = RunFolder(folder, proposed.run), proposed.plan
    if proposed.begun:
        return find_run(folder, proposed.begun)
    request = proposed.request or operator_request(open_lineage_key(folder), proposed.study, plan)
    study = study_without(proposed.study, plan, request.digest)
    revoke(parent.path, _reason(plan))
    if not find_run(folder, parent.name).is_over:
        stop_run(folder, parent.name)
    place = folder / "runs" / f"{_PREPARING}-{study.digest[:16]}"
    shutil.rmtree(place, ignore_errors=True)
    make_private_folder(place.parent)
    make_private_folder(place)
    released = read_release(parent.path)
    source = Parent(
        parent.name,
        CheckpointStore(parent.checkpoints),
        None if released is None else (released.model, released.round),
    )
    target = CheckpointStore(place / parent.checkpoints.name)
    record = prepare_repeat(source, target, plan, request, study)
    write_repeat(place, record)

    def fill(run: RunFolder) -> None:
        shutil.rmtree(run.path, ignore_errors=True)  # of a try that was killed: no run has it
        place.rename(run.path)
        run.put_status(_status(run, study, plan))

    try:
        return submit_study(folder, study, _wanted(folder, parent, plan), fill=fill)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def certify(folder: Path, run: RunFolder, study: Study, kept: Commit) -> None:
    """Write the certificate of a finished repeat; of any other run none.

    Raises:
        InputError: The server's key cannot be used.
        RunError: The commit that the repeat began with is damaged.
    """
    record = read_repeat(run.path)
    if record is None:
        return
    said = certificate_of(record, study, run.checkpoints, kept)
    line = sign_certificate(open_lineage_key(folder), said)
    replace_file(run.path / CERTIFICATE_FILE, line + b"\n")
    run.log("withdrawal certified", reason=hashlib.sha256(line).hexdigest())


def operator_request(key: Ed25519PrivateKey, study: Study, plan: WithdrawalPlan) -> SignedRequest:
    """Return the request of an operator who takes a site out that has not asked."""
    asked = WithdrawalRequest(
        study=study.digest,
        site=plan.site,
        server="",
        without=plan.without,
        by="operator",
        time=int(time.time()),
    )
    return sign_request(key, asked)


def _wanted(folder: Path, parent: RunFolder, plan: WithdrawalPlan) -> tuple[str, ...]:
    """Return whom the repeat is for: whom the parent was for, without the site that left."""
    wanted = parent.wanted_sites() or tuple(
        one.site for one in members(folder) if one.site in plan.others or one.site == plan.site
    )
    wanted = tuple(dict.fromkeys((*wanted, *plan.others)))
    return tuple(site for site in wanted if plan.without == "patients" or site != plan.site)


def _status(run: RunFolder, study: Study, plan: WithdrawalPlan) -> RunStatus:
    early = tuple(s for s in plan.others if plan.first_rounds.get(s, 1) <= plan.after_round)
    status = RunStatus(run.name, study.name, study.digest, rounds=study.federation.rounds)
    return replace(status, round=plan.after_round, took_part=early * bool(plan.after_round))


def _begun(folder: Path, run: str, site: str, without: Without) -> str:
    for path in sorted((folder / "runs").glob("*")):
        record = read_repeat(path)
        if record and (record.parent_run, record.site, record.without) == (run, site, without):
            with suppress(InputError):  # what a killed command left is no run
                return find_run(folder, path.name).run
    return ""


def _reason(plan: WithdrawalPlan) -> str:
    what = plan.site if plan.without == "site" else f"patients of {plan.site}"
    return f"{what} left the study, and the model was made with them"
