"""Faults: a run is stopped, waits or lacks its quorum; root types; a folder is restored."""

import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import tomli_w
from tests.faults.not_here import NotHereError
from tests.faults.stage import MANY, ROUNDS, SITES, Stage, make_study, wait_until
from tests.faults.table.fault import FIRST, SAME, SECOND, SENDS, STEPS, THIRD, TRAINS, Fault

from wardround.client.daemon.control_socket import ask_daemon
from wardround.client.daemon.status import DaemonStatus
from wardround.client.policy.approvals import decide
from wardround.client.privacy.ledger.file import read_ledger
from wardround.common.errors import RunError
from wardround.common.study.study import Study
from wardround.server.operators.messages import RunDetails

_NOBODY = 65_534
_STOP_SECONDS = 20.0  # "within seconds", on a machine that does two stages at once
_SHORT_WAIT_SECONDS = 8.0  # for a quorum that does not come


def say(*words: object) -> str:
    """Return what a command of wardround says.

    Raises:
        AssertionError: It failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "wardround.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def another_study(stage: Stage, name: str, **federation: object) -> Study:
    return make_study(stage.folder / "data" / "manifest.csv", name, **federation)


def message_of(stage: Stage, run: str) -> str:
    with stage.line() as line:
        return line.show(run).summary.message


def await_daemon(stage: Stage, name: str) -> None:
    """Wait until a site that was started anew is connected: the server remembers the one before."""

    def is_connected() -> bool:
        try:
            status = DaemonStatus.from_json(ask_daemon(stage.site(name), "status"))
        except RunError:
            return False
        return bool(status.connected_since)

    wait_until(is_connected)


def state_of(stage: Stage, run: str) -> str:
    with stage.line() as line:
        return line.show(run).summary.state


# --- Stop -----------------------------------------------------------------------------------------


def stopped_while_sites_train(stage: Stage) -> RunDetails:
    """Stop a private round that would last minutes; another study begins, and the first goes on."""
    for name in SITES:
        stage.arm("hold", STEPS, 1, name, name=f"long-{name}")
    run = stage.submit(stage.private)
    for name in SITES:
        stage.wait_reached(f"long-{name}")
    charged = {name: read_ledger(stage.site(name)).entries for name in SITES}
    workers = [stage.site_processes(name)[1].pid for name in SITES]
    waiting = stage.submit(stage.plain)
    began = time.monotonic()
    say("runs", "stop", run, "--server", stage.federation.server)
    wait_until(lambda: state_of(stage, run) == "stopped")
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in workers))
    took = time.monotonic() - began
    assert took < _STOP_SECONDS, f"the sites left it after {took:.0f} s"
    spent = {name: read_ledger(stage.site(name)).entries for name in SITES}
    assert spent == charged, "what is charged for a round stays as it was"
    stage.finish_as_simulated(waiting)
    say("runs", "resume", run, "--server", stage.federation.server)
    return stage.finish(run)


# --- Another account ------------------------------------------------------------------------------


@contextmanager
def site_of_nobody(stage: Stage, name: str) -> Iterator[Path]:
    """Have a site's daemon and its folder belong to the account "nobody"."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        msg = "only root can start a daemon under another account"
        raise NotHereError(msg)
    drop = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    # A daemon starts a worker: whether an interpreter in root's home may be started is seen so.
    start = (
        "import subprocess, sys, wardround; subprocess.run([sys.executable, '-c', ''], check=True)"
    )
    words = [*drop, sys.executable, "-c", start]
    if subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode:
        msg = "the account nobody cannot use this installation"
        raise NotHereError(msg)
    site = stage.site(name)
    stage.kill_site(name)
    for folder in (stage.folder, stage.folder / "sites", stage.folder / "data"):
        folder.chmod(0o755)
    stage.plans.chmod(0o777)
    (stage.plans / "calls.log").chmod(0o666)
    give(site, _NOBODY)
    try:
        stage.start_site_by(drop, name)
        await_daemon(stage, name)
        yield site
    finally:
        stage.kill_site(name)
        give(site, os.geteuid())
        stage.start_site(name)
        await_daemon(stage, name)


def give(folder: Path, account: int) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, account, account, follow_symlinks=False)


def root_types_while_a_site_trains(stage: Stage) -> RunDetails:
    """Approve, renew, back up and read as root what another account's daemon works with."""
    study = another_study(stage, "typed")
    file = stage.folder / "typed.toml"
    file.write_text(study.to_toml())
    with site_of_nobody(stage, SECOND) as site:
        stage.arm("hold", TRAINS, 2, FIRST)
        run = stage.submit(stage.plain)
        stage.wait_reached()
        say("site", "approve", file, "--site", site)
        say("site", "renew", site)
        say("site", "audit", "verify", site)
        say("site", "backup", site, stage.folder / "typed.tar", "--keys")
        (stage.folder / "typed.tar").unlink()
        stage.go()
        stage.finish_as_simulated(run)
        for name in (FIRST, THIRD):
            decide(stage.site(name), study.digest, "approved", terms=MANY)
        details = stage.finish(stage.submit(study))  # what root approved, the daemon reads
        assert all(SECOND in report.sites for report in details.history[:ROUNDS])
        others = [path.name for path in site.rglob("*") if path.lstat().st_uid != _NOBODY]
        assert not others, f"root's own in the site's folder: {others}"
    return details


# --- Restore --------------------------------------------------------------------------------------


def server_is_restored(stage: Stage) -> RunDetails:
    """Back up a server while its sites train, lose it a round later, and restore it."""
    server, file = stage.federation.server, stage.folder / "server.tar"
    file.unlink(missing_ok=True)
    stage.arm("hold", SENDS, 2)
    run = stage.submit(stage.plain)
    stage.wait_reached()
    say("server", "backup", server, file)
    stage.arm("hold", SENDS, 2, name="later")
    stage.go()
    stage.wait_reached("later")  # a round that the backup does not know has been committed
    stage.kill_server()
    shutil.rmtree(server)
    say("server", "restore", file, server)
    stage.disarm("later")
    stage.restart_server()
    stage.await_sites()  # with the keys that they have: nobody has joined anew
    return stage.finish_as_simulated(run)


def site_is_restored(stage: Stage) -> RunDetails:
    """Back up a site while its daemon runs, lose its folder, and restore it."""
    site, file = stage.site(SECOND), stage.folder / "site.tar"
    file.unlink(missing_ok=True)
    stage.finish(stage.submit(stage.private))
    say("site", "backup", site, file, "--keys")
    before = read_ledger(site).entries
    stage.kill_site(SECOND)
    shutil.rmtree(site)
    say("site", "restore", file, site)
    assert read_ledger(site).entries == before, "its ledger is another"
    stage.restart_site(SECOND)
    await_daemon(stage, SECOND)
    details = stage.finish(stage.submit(stage.private))
    assert all(SECOND in report.sites for report in details.history[:ROUNDS])
    return details


# --- Queue and quorum -----------------------------------------------------------------------------


def nobody_has_approved_the_first(stage: Stage) -> RunDetails:
    """Hand in a study that nobody approved, and a ready one behind it; then reject the first."""
    unread = another_study(stage, f"unread-{time.monotonic_ns()}")
    first = stage.submit(unread)
    wait_until(lambda: "has not approved the study" in message_of(stage, first))
    details = stage.finish_as_simulated(stage.submit(stage.plain))
    assert state_of(stage, first) == "waiting for sites"
    for name in SITES:
        decide(stage.site(name), unread.digest, "rejected")
    ended = stage.await_end(first)
    assert ended.summary.state == "failed", ended.summary.state
    assert "has rejected the study" in ended.summary.message, ended.summary.message
    return details


def leave_one_site(stage: Stage) -> None:
    """Kill two of three sites, and wait until the server has noticed."""
    for name in (SECOND, THIRD):
        stage.kill_site(name)
    with stage.line() as line:
        wait_until(lambda: line.server().connected == 1)


def quorum_comes_late(stage: Stage) -> RunDetails:
    """Hand a study in while one of three sites is there; a second one makes the quorum of two."""
    leave_one_site(stage)
    run = stage.submit(stage.plain)
    wanted = ("1 of 3 are ready", f"{SECOND} is not connected", f"{THIRD} is not connected")
    wait_until(lambda: all(words in message_of(stage, run) for words in wanted))
    stage.start_site(SECOND)
    details = stage.finish(run)
    assert details.summary.without == (THIRD,), details.summary.without
    for report in details.history[:ROUNDS]:
        assert set(report.sites) == {FIRST, SECOND}, f"round {report.round}: {report.sites}"
    return details


def quorum_does_not_come(stage: Stage) -> RunDetails:
    """Let a study wait in vain for its quorum; with the sites back it is resumed."""
    with patience_of_server(stage, _SHORT_WAIT_SECONDS):
        leave_one_site(stage)
        run = stage.submit(stage.plain)
        ended = stage.await_end(run).summary
        assert ended.state == "failed", ended.state
        for words in ("needs 2 sites and 1 can take part", f"{SECOND} is not connected"):
            assert words in ended.message, ended.message
        for name in (SECOND, THIRD):
            stage.start_site(name)
    for name in SITES:
        await_daemon(stage, name)
    say("runs", "resume", run, "--server", stage.federation.server)
    return stage.finish_as_simulated(run)


@contextmanager
def patience_of_server(stage: Stage, seconds: float) -> Iterator[None]:
    """Start the server anew with another time to wait for a quorum, and again without."""
    path = stage.federation.server / "server.toml"
    before = path.read_bytes()
    settings = {**tomllib.loads(before.decode()), "approval_timeout_seconds": seconds}
    path.write_text(tomli_w.dumps(settings))
    stage.kill_server()
    stage.restart_server()
    try:
        stage.await_sites()
        yield
    finally:
        path.write_bytes(before)
        stage.kill_server()
        stage.restart_server()


FAULTS = (
    Fault(
        "35",
        "runs stop while sites train, another study queued",
        f"the sites leave it within {_STOP_SECONDS:g} s and charge nothing more; the next study "
        "begins; resumed, the stopped one finishes",
        stopped_while_sites_train,
    ),
    Fault(
        "36",
        "root types approve, renew, audit verify and backup at a site that another account serves, "
        "while it trains",
        "nothing in the folder is root's; the run goes on to the same model; what root approved "
        "trains",
        root_types_while_a_site_trains,
    ),
    Fault(
        "37",
        "a server is lost and restored from a backup that was made while it ran, a round before",
        f"{SAME}; no site joins anew",
        server_is_restored,
    ),
    Fault(
        "37b",
        "a site's folder is lost and restored from a backup that was made while its daemon ran",
        "its ledger is what it was; it takes part without joining anew",
        site_is_restored,
    ),
    Fault(
        "38",
        "a study that nobody has approved, before a ready one",
        "the ready one is not blocked and ends in its model; rejected, the first ends at once and "
        "says by whom",
        nobody_has_approved_the_first,
    ),
    Fault(
        "39",
        "one of three sites is there; a second comes later, the third never",
        "it waits and says for whom; it begins with its quorum of two and says who was missing",
        quorum_comes_late,
    ),
    Fault(
        "39b",
        f"a quorum that does not come within {_SHORT_WAIT_SECONDS:g} s",
        "the run ends and names who was missing; resumed with them, the same model",
        quorum_does_not_come,
    ),
)
