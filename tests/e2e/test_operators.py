"""A real server: its supervisor and its children, and the operator's commands beside it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from tests.faults.stage import SITES, Stage

from wardround.client.policy.approvals import decide
from wardround.client.privacy.ledger.file import read_ledger
from wardround.common.errors import WardroundError
from wardround.common.study.loading import with_changes
from wardround.server.operators.client import server_at
from wardround.server.service.installation import init_server
from wardround.simulations.local_federation.processes import free_port

pytestmark = pytest.mark.slow
TRAINS = "client.session.session:SiteSession.train"
_PATIENCE_SECONDS = 90.0
_WARDROUND = [sys.executable, "-m", "wardround.cli"]


@pytest.fixture
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("s") / "server"
    init_server(place, "Demo", ["localhost"], "127.0.0.1", free_port())
    return place


@contextmanager
def _running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "start.log").open("ab") as log:
        process = subprocess.Popen(
            [*_WARDROUND, "server", "start", str(folder)], stdout=log, stderr=log
        )
    try:
        _until(lambda: _is_open(folder))
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _say(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_WARDROUND, *(str(word) for word in words)],
        capture_output=True,
        text=True,
        env={**os.environ, "WARDROUND_SERVER": str(folder)},
        check=False,
    )


def _state(folder: Path, run: str) -> str:
    """Ask as the commands do; a command that starts anew for each look takes the tests' time."""
    with server_at(str(folder)) as line:
        return line.show(run).summary.state


def _is_open(folder: Path) -> bool:
    try:
        with server_at(str(folder)) as line:
            return line.server().link_is_up
    except WardroundError:
        return False


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.3)


def _submit(folder: Path, name: str) -> str:
    study = folder.parent / f"{name}.toml"
    assert _say(folder, "study", "new", study).returncode == 0
    study.write_text(study.read_text().replace('"my-study"', f'"{name}"'), encoding="utf-8")
    said = _say(folder, "study", "submit", study, "--json")
    assert said.returncode == 0, said.stderr
    return str(json.loads(said.stdout)["run"])


@pytest.mark.long
def test_the_queue_survives_kill_9_and_studies_wait_beside_each_other(folder) -> None:
    with _running(folder) as process:
        first, second = _submit(folder, "one"), _submit(folder, "two")
        _until(lambda: _state(folder, first) == "waiting for sites")
        _until(lambda: _state(folder, second) == "waiting for sites")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert _say(folder, "runs", "list").returncode == 3
    with _running(folder) as process:
        _until(lambda: _state(folder, first) == "waiting for sites")
        assert _say(folder, "runs", "stop", first).returncode == 0
        watched = _say(folder, "runs", "watch", first)
        assert watched.returncode == 3
        assert watched.stdout.splitlines()[-1] == "stopped by an operator"
        _until(lambda: _state(folder, second) == "waiting for sites")
        resumed = json.loads(_say(folder, "runs", "resume", first, "--json").stdout)
        assert resumed["state"] == "queued"
        assert _say(folder, "runs", "stop", second).returncode == 0
        _until(lambda: _state(folder, first) == "waiting for sites")
        process.terminate()
        assert process.wait(60) == 0
    assert not (folder / "operator.sock").exists()


def test_a_second_server_in_the_same_folder_is_refused_and_disturbs_nothing(folder) -> None:
    with _running(folder):
        again = _say(folder, "server", "start", folder)
        assert again.returncode == 3
        assert "works in" in again.stderr
        assert _say(folder, "server", "status", folder).returncode == 0


# --- Sites that come late, get stuck, and come back -----------------------------------------------
_LIMITS = (
    "first_deadline_seconds = 60.0\nleast_deadline_seconds = 10.0\nabsence_seconds = 5.0\n"
    "gathering_seconds = 20.0\n"
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("o"))
    try:
        made.open()
        settings = made.federation.server / "server.toml"
        kept = [line for line in settings.read_text().splitlines() if "_deadline_" not in line]
        own = ("absence_seconds", "gathering_seconds")
        kept = [line for line in kept if not line.startswith(own)]
        settings.write_text("\n".join(kept) + "\n" + _LIMITS)  # read when a study begins
        yield made
    finally:
        made.close()


@pytest.mark.long
def test_sites_that_are_late_stuck_or_away_are_seen_by_the_operator_and_take_part_again(
    stage: Stage,
) -> None:
    folder, (first, second, third) = stage.federation.server, SITES
    study = with_changes(
        stage.plain,
        {"study.name": "patient", "federation.minimum_sites": 1, "federation.rounds": 7},
    )
    stage.federation.child(third).end(_PATIENCE_SECONDS)
    decide(stage.site(first), study.digest, "approved")
    stage.arm("freeze with parent", TRAINS, 2, second, name="stuck")
    stage.arm("hold", "server.rounds.asking:pack_instruction", 4, name="held")
    stage.arm(
        "hold", "server.rounds.asking:pack_instruction", 5, name="last"
    )  # counted from the other on
    text = folder.parent / "patient.toml"
    text.write_text(study.to_toml(), encoding="utf-8")
    run = str(json.loads(_say(folder, "study", "submit", text, "--json").stdout)["run"])
    with subprocess.Popen(
        [*_WARDROUND, "runs", "watch", run, "--server", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    ) as watch:
        assert watch.stdout is not None
        waiting = f"{second} has not approved the study"
        assert any(waiting in line for line in watch.stdout), "the watch ended before it said so"
        decide(stage.site(second), study.digest, "approved")
        stage.wait_reached("held")  # in round 4: the second site froze in round 2
        stage.thaw()
        stage.start_site(third)
        decide(stage.site(third), study.digest, "approved")
        stage.await_sites()
        time.sleep(1.0)  # for the second site's late answer
        stage.go("held")
        stage.wait_reached("last")  # in round 6
        _until(lambda: stage.calls("client.egress.gateway:Gateway.describe", third))
        stage.go("last")
        told = watch.communicate(timeout=_PATIENCE_SECONDS)[0]
    assert watch.returncode == 0, told
    found = json.loads(_say(folder, "runs", "show", run, "--json").stdout)
    rounds = {one["round"]: one for one in found["history"] if one["sites"]}
    assert [rounds[number]["sites"] for number in range(1, 5)] == [
        [first, second],
        [first],
        [first],
        [first],
    ]
    assert second in rounds[5]["sites"]
    assert rounds[7]["sites"] == [*SITES]
    assert rounds[2]["seconds"] < 40, "a stuck site costs the deadline that earlier rounds taught"
    assert rounds[3]["seconds"] < rounds[2]["seconds"], "and costs it once"
    reasons = {(one["site"], one["reason"]) for one in found["refusals"]}
    assert (second, "no answer before the deadline") in reasons
    assert (second, "has not answered since round 2") in reasons
    assert (third, "is not connected") in reasons
    for words in (
        "the study sets no deadline",
        f"round 2 waits for {second}: no answer yet",
        f"a site is not waited for any more (did not answer in round 2): {second}",
        f"a site is back (its late answer came): {second}",
        "a site has come (from round",
    ):
        assert words in told


def test_a_run_that_is_stopped_after_a_round_and_resumed_ends_with_the_same_model(
    stage: Stage,
) -> None:
    folder = stage.federation.server
    stage.restore()
    stage.arm("hold", "server.rounds.asking:pack_instruction", 2, name="held")
    run = stage.submit(stage.plain)
    stage.wait_reached("held")
    assert _say(folder, "runs", "resume", run).returncode == 2
    assert _say(folder, "runs", "stop", run).stdout == f"{run} is stopping.\n"
    _until(lambda: _state(folder, run) == "stopped")
    shown = json.loads(_say(folder, "runs", "show", run, "--json").stdout)
    assert shown["summary"]["round"] == 1
    assert _say(folder, "runs", "stop", run).returncode == 2
    assert _say(folder, "runs", "resume", run).stdout == f"{run} is queued.\n"
    stage.finish_as_simulated(run)
    assert _say(folder, "runs", "resume", run).returncode == 2


@pytest.mark.long
def test_a_run_that_is_stopped_ends_at_its_sites_within_seconds_and_the_next_study_begins(
    stage: Stage,
) -> None:
    folder = stage.federation.server
    stage.restore()
    for site in SITES:  # a round that would take five minutes
        stage.arm("hold", "client.privacy.step:learning_rate_at", 1, site, name=f"long-{site}")
    run = stage.submit(stage.private)
    for site in SITES:
        stage.wait_reached(f"long-{site}")
    charged = [read_ledger(stage.site(site)).entries for site in SITES]
    assert all(charged)
    workers = [stage.site_processes(site)[1].pid for site in SITES]
    assert _say(folder, "runs", "stop", run).returncode == 0
    began = time.monotonic()
    _until(lambda: _state(folder, run) == "stopped")
    _until(lambda: not [pid for pid in workers if psutil.pid_exists(pid)])
    assert time.monotonic() - began < 20, "their processes have left it"
    assert [read_ledger(stage.site(site)).entries for site in SITES] == charged, (
        "what is spent stays spent"
    )
    stage.finish_as_simulated(stage.submit(stage.plain))
    # The stopped run goes on, and nobody pays for its first round twice.
    assert _say(folder, "runs", "resume", run).returncode == 0
    stage.finish(run)
