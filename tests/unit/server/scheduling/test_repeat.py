"""A site leaves a run of a server folder: the plan, the repeat, and what hostile sites may ask."""

import asyncio
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.types import Receive, Scope, Send
from tests.support.stage import table_study

from wardround.common.errors import InputError, RunError
from wardround.common.security.withdrawal.certificate import open_certificate
from wardround.common.security.withdrawal.request import (
    SignedRequest,
    WithdrawalRequest,
    sign_request,
)
from wardround.common.study.loading import with_changes
from wardround.common.study.study import Study
from wardround.server.checkpoints.history import RoundRecord, SiteRecord, append_record
from wardround.server.checkpoints.release import revoked_because
from wardround.server.checkpoints.store import CheckpointStore, Commit, Progress
from wardround.server.link.withdrawals import Withdrawals
from wardround.server.scheduling.folder import RunFolder, RunStatus
from wardround.server.scheduling.queue import resume_run
from wardround.server.scheduling.repeat import begin_repeat, certify, propose
from wardround.server.scheduling.store import all_runs, changing, find_run
from wardround.server.scheduling.submission import submit_study
from wardround.server.sites.withdrawal import plan_withdrawal
from wardround.server.sites.withdrawal_requests import find_request, open_requests, read_repeat

SITES, ROUNDS, DONE, LATE = ("east", "north", "west"), 8, 6, 4
KEY = Ed25519PrivateKey.generate()
STUDY = table_study("leaving", rounds=ROUNDS, minimum_sites=2)
HOME = "this consortium"


def commit_rounds(store: CheckpointStore, study: Study, done: int = DONE) -> None:
    """Commit rounds of three sites, of which west comes in the fourth."""
    run, heard = "a" * 32, set[str]()
    progress = Progress(study.digest, run, 0)
    store.commit(Commit(progress, {"w": torch.tensor([0.0])}))
    for number in range(1, done + 1):
        there = [site for site in SITES if site != "west" or number >= LATE]
        records = tuple(SiteRecord(site, 5, 1, 0.0, 1, 1, 0.0) for site in there)
        record = RoundRecord(number, number - 1, 2.0, records)
        if {*there} - heard and number > 1:
            store.pin(progress)
        heard.update(there)
        length = append_record(store.history_path, record)
        progress = Progress(study.digest, run, number, history_bytes=length)
        store.commit(Commit(progress, {"w": torch.tensor([float(number)])}))


def put_run(folder: Path) -> None:
    """Give a server folder its members, and a run of them of which some rounds are done."""
    with changing(folder) as connection:
        for number, site in enumerate(SITES):
            connection.execute("INSERT INTO members VALUES (?, ?, 5.0)", (site, f"key-{number}"))
    row = submit_study(folder, STUDY)
    run = RunFolder(folder, row.run)
    commit_rounds(CheckpointStore(run.checkpoints), STUDY)
    run.put_status(RunStatus(row.run, STUDY.name, STUDY.digest, "running", DONE, took_part=SITES))


@pytest.fixture
def server(tmp_path: Path) -> Path:
    put_run(tmp_path)
    return tmp_path


def run_of(server: Path) -> RunFolder:
    return RunFolder(server, all_runs(server)[0].run)


def request(**changes: object) -> SignedRequest:
    said = {"study": STUDY.digest, "site": "west", "server": HOME, "without": "site", "time": 7}
    return sign_request(KEY, WithdrawalRequest.model_validate({**said, **changes}))


def test_the_plan_goes_back_to_the_last_commit_without_the_site(server: Path) -> None:
    found = propose(server, run_of(server).name, "west", "site").plan
    assert (found.first_round, found.after_round, found.repeated) == (LATE, LATE - 1, 5)
    assert found.seconds == pytest.approx(2.0 * 5)
    assert found.kept == (3, 5, 6)
    assert found.others == ("east", "north")
    founder = propose(server, run_of(server).name, "north", "site").plan
    assert (founder.after_round, founder.repeated) == (0, ROUNDS)
    assert dict(founder.first_rounds) == {"west": LATE}


def test_where_the_pinned_commit_is_gone_or_damaged_an_earlier_one_or_the_start_is_taken(
    server: Path,
) -> None:
    store = CheckpointStore(run_of(server).checkpoints)
    (store.folder / "round-00003" / "model.safetensors").write_bytes(b"damaged")
    plan = plan_withdrawal(store, STUDY, "west")
    assert plan.after_round == 0
    assert any("no commit without it" in reason for reason in plan.why)
    shutil.rmtree(store.folder)
    with pytest.raises(RunError, match="no whole commit"):
        plan_withdrawal(store, STUDY, "west")


def going_on_from(server: Path, parent: str) -> str:
    """Queue a study that goes on from another one, with rounds of the same sites."""
    keys = {"wave": 2, "parent": parent, "model": "b" * 64, "method": "none"}
    changes = {f"continual.{key}": value for key, value in keys.items()}
    child = with_changes(STUDY, {**changes, "model.weights_sha256": "d" * 64})
    row = submit_study(server, child)
    folder = RunFolder(server, row.run)
    commit_rounds(CheckpointStore(folder.checkpoints), child)
    return row.run


def test_a_site_leaves_a_run_that_goes_on_from_one_of_its_own_only_after_that_one(
    server: Path,
) -> None:
    first = run_of(server).name
    child = going_on_from(server, STUDY.digest)
    with pytest.raises(InputError, match=f"goes on from the model of {first}, in which west"):
        propose(server, child, "west", "site")
    plan = propose(server, first, "west", "site").plan
    assert not any("what that one learnt stays" in reason for reason in plan.why)
    unknown = going_on_from(server, "c" * 64)
    plan = propose(server, unknown, "west", "site").plan
    assert any(f"of study {'c' * 16}, and what that one learnt stays" in w for w in plan.why)


def test_too_few_sites_are_left(server: Path) -> None:
    few = with_changes(STUDY, {"federation.minimum_sites": 3})
    with pytest.raises(InputError, match="can be revoked, but not trained again"):
        plan_withdrawal(CheckpointStore(run_of(server).checkpoints), few, "west")


@pytest.mark.parametrize(
    ("changes", "after", "exact"),
    [
        ({"federation.buffer_size": 2}, 3, False),
        ({"federation.strategy": "scaffold"}, 0, True),
        ({"federation.strategy": "ditto"}, 0, True),
        ({"federation.strategy": "fedadam"}, 3, True),
        ({"federation.secure_aggregation": True, "federation.minimum_sites": 2}, 3, True),
    ],
)
def test_what_a_strategy_remembers_decides_from_where(
    server: Path, changes: dict[str, Any], after: int, exact: bool
) -> None:
    try:
        study = with_changes(STUDY, changes)
    except InputError:
        study = with_changes(STUDY, {**changes, "federation.minimum_sites": 3})
        study = study.model_copy(
            update={"federation": study.federation.model_copy(update={"minimum_sites": 2})}
        )
    plan = plan_withdrawal(CheckpointStore(run_of(server).checkpoints), study, "west")
    assert (plan.after_round, plan.is_exact) == (after, exact)
    assert plan.words()


def test_a_repeat_begins_where_the_site_was_not_and_the_run_stays(server: Path) -> None:
    run = run_of(server)
    before = {path: path.read_bytes() for path in run.checkpoints.rglob("*") if path.is_file()}
    row = begin_repeat(server, propose(server, run.name, "west", "site"))
    repeat = RunFolder(server, row.run)
    latest = CheckpointStore(repeat.checkpoints).latest()
    assert latest is not None
    assert latest.progress.round == LATE - 1
    assert latest.progress.digest == row.digest == repeat.study().digest != STUDY.digest
    assert repeat.wanted_sites() == ("east", "north")
    assert b"west" not in (repeat.checkpoints / "history.jsonl").read_bytes()
    assert {p: p.read_bytes() for p in before} == before
    assert "west left the study" in revoked_because(run.path)
    assert find_run(server, run.name).wanted == "stop"
    with pytest.raises(InputError, match="not resumed"):
        resume_run(server, run.name)
    again = propose(server, run.name, "west", "site")
    assert begin_repeat(server, again).run == row.run
    assert len(all_runs(server)) == 2


def test_two_founders_who_leave_are_two_studies(server: Path) -> None:
    run = run_of(server)
    study = with_changes(STUDY, {"federation.minimum_sites": 1})
    (run.path / "study.toml").write_text(study.to_toml())
    digests = {
        begin_repeat(server, propose(server, run.name, site, "site")).digest
        for site in ("east", "north")
    }
    assert len(digests) == 2


def test_what_a_killed_command_left_is_no_run(server: Path) -> None:
    run = run_of(server)
    row = begin_repeat(server, propose(server, run.name, "west", "site"))
    with changing(server) as connection:  # as if the kill had come before the database knew
        connection.execute("DELETE FROM runs WHERE run = ?", (row.run,))
    proposed = propose(server, run.name, "west", "site")
    assert proposed.begun == ""
    assert begin_repeat(server, proposed).run


def test_a_finished_repeat_is_certified(server: Path) -> None:
    run = run_of(server)
    row = begin_repeat(server, propose(server, run.name, "west", "site"))
    repeat = RunFolder(server, row.run)
    store = CheckpointStore(repeat.checkpoints)
    progress = dataclasses.replace(store.load(LATE - 1).progress, round=ROUNDS)
    last = Commit(progress, {"w": torch.tensor([9.0])})
    store.commit(last)
    certify(server, repeat, repeat.study(), last)
    found = open_certificate((repeat.path / "withdrawal.json").read_bytes())
    assert found.request.asked.by == "operator"
    assert (found.said.checkpoint.round, found.said.repeat.rounds) == (LATE - 1, ROUNDS)
    assert found.said.revoked[0].round == DONE
    certify(server, run, STUDY, last)
    assert not (run.path / "withdrawal.json").exists(), "a run that repeats none has none"


def test_a_study_that_says_it_repeats_is_not_submitted_by_hand(server: Path) -> None:
    run = run_of(server)
    row = begin_repeat(server, propose(server, run.name, "west", "site"))
    forged = RunFolder(server, row.run).study()
    with pytest.raises(InputError, match="runs withdraw"):
        submit_study(server, with_changes(forged, {"study.name": "forged"}))


# --- What sites ask -------------------------------------------------------------------------------


def ask(server: Path, site: str, body: bytes) -> tuple[int, dict[str, Any]]:
    desk = Withdrawals(server, HOME)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await desk.answer(site, scope, receive, send)

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://server") as client:
            return await client.post("/wardround/withdrawals", content=body)

    reply = asyncio.run(post())
    return reply.status_code, reply.json()


def test_a_request_is_noted_once_and_a_replay_changes_nothing(server: Path) -> None:
    first, later = request(), request(time=9)
    assert ask(server, "west", first.line)[1]["state"] == "noted"
    assert [one.digest for one in open_requests(server)] == [first.digest]
    assert ask(server, "west", later.line)[0] == 200
    kept = find_request(server, STUDY.digest, "west", "site")
    assert kept is not None
    assert kept.digest == first.digest, "the first counts"
    row = begin_repeat(server, propose(server, run_of(server).name, "west", "site"))
    assert open_requests(server) == ()
    record = read_repeat(RunFolder(server, row.run).path)
    assert record is not None
    assert record.request.encode() == first.line
    assert ask(server, "west", first.line)[1]["study"] == row.digest


@pytest.mark.parametrize(
    ("site", "changes", "status"),
    [
        ("north", {}, 403),  # north would have west leave
        ("west", {"server": "another consortium"}, 403),
        ("west", {"by": "operator"}, 403),
        ("west", {"study": "0" * 64}, 404),
        ("stranger", {"site": "stranger"}, 404),
    ],
)
def test_what_is_not_a_site_s_own_is_refused(
    server: Path, site: str, changes: dict[str, Any], status: int
) -> None:
    assert ask(server, site, request(**changes).line)[0] == status
    assert open_requests(server) == ()


@pytest.mark.parametrize("body", [b"", b"{}", b"x" * 100_000, request().line[:-1]])
def test_whatever_else_comes_is_refused(server: Path, body: bytes) -> None:
    assert ask(server, "west", body)[0] in (400, 413)
    assert open_requests(server) == ()
