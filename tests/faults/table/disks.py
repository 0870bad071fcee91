"""Faults: a disk is full, or no longer holds what was written."""

from tests.faults.full_disk import small_disk
from tests.faults.invariants import check_invariants
from tests.faults.stage import ROUNDS, Stage, flip_byte, refusals_of, wait_until
from tests.faults.table.fault import (
    COMMITS,
    FIRST,
    FOLDS,
    SAME,
    SECOND,
    SENDS,
    THIRD,
    TRAINS,
    Fault,
)

from wardround.client.privacy.ledger.file import LEDGER_FOLDER
from wardround.server.operators.messages import RunDetails
from wardround.server.scheduling.folder import RUNS_FOLDER, RunFolder


def disk_of_server_is_full(stage: Stage) -> RunDetails:
    stage.arm("full disk", COMMITS, 5)
    details = stage.finish_as_simulated(stage.submit(stage.plain))
    assert details.starts == 2, f"its process was started {details.starts} times"
    return details


def disk_of_site_is_full(stage: Stage) -> RunDetails:
    stage.arm("full disk", "client.privacy.ledger.file:LedgerFile._write", 5, SECOND)
    trained = stage.calls(TRAINS, SECOND)
    details = stage.finish(stage.submit(stage.private))
    refused = [number for number, site in refusals_of(details) if site == SECOND]
    assert refused, "it should have refused a round"
    drawn = stage.calls(TRAINS, SECOND) - trained
    assert drawn <= ROUNDS, f"it trained {drawn} times"
    return details


def commit_is_damaged(stage: Stage) -> RunDetails:
    stage.arm("die with parent", FOLDS, 8)  # in round 3
    run = stage.submit(stage.plain)
    wait_until(lambda: stage.federation.child("server").exit_code is not None)
    checkpoints = RunFolder(stage.federation.server, run).checkpoints
    assert (checkpoints / "round-00002").is_dir()
    flip_byte(checkpoints / "round-00002" / "model.safetensors", -3)
    stage.restart_server()
    return stage.finish_as_simulated(run)


def disk_of_server_fills_up(stage: Stage) -> RunDetails:
    """Fill the file system that holds the runs, in the middle of a commit, until a run fails."""
    runs = stage.federation.server / RUNS_FOLDER
    runs.mkdir(exist_ok=True)
    with small_disk(runs, stage.folder / "server-disk", megabytes=64) as disk:
        stage.arm("hold", COMMITS, 5)
        run = stage.submit(stage.plain)
        stage.wait_reached()
        disk.fill()
        stage.go()
        details = stage.await_end(run)
        assert details.summary.state == "failed", details.summary.state
        assert details.summary.round == 1, "a commit that was not written counts"
        assert "is full" in details.summary.message, details.summary.message
        disk.clear()
        with stage.line() as line:
            line.resume(run)
        return stage.finish_as_simulated(run)


def disk_of_site_fills_up(stage: Stage) -> RunDetails:
    """Fill the file system that holds a site's ledger, between two rounds of a private study."""
    ledger = stage.site(SECOND) / LEDGER_FOLDER
    ledger.mkdir(exist_ok=True)
    with small_disk(ledger, stage.folder / "site-disk", megabytes=8) as disk:
        stage.arm("hold", SENDS, 2)
        run = stage.submit(stage.private)
        stage.wait_reached()
        disk.fill()
        stage.go()
        details = stage.finish(run)
        refused = [number for number, site in refusals_of(details) if site == SECOND]
        assert refused, "it should have refused a round"
        for report in details.history[:ROUNDS]:
            assert {FIRST, THIRD} <= set(report.sites), f"round {report.round}: {report.sites}"
        check_invariants(stage, details)
        disk.clear()
        again = stage.finish(stage.submit(stage.private))
    assert all(SECOND in report.sites for report in again.history[:ROUNDS])
    return again


FAULTS = (
    Fault(
        "15",
        "no space left when the server commits (error injected)",
        f"no commit; {SAME}",
        disk_of_server_is_full,
    ),
    Fault(
        "15b",
        "the server's disk is full (a file system of 64 MB, filled) until its run has failed",
        f"no commit; the run fails and says so; resumed with space, it {SAME}",
        disk_of_server_fills_up,
    ),
    Fault(
        "16",
        "no space left when a site charges (error injected)",
        "the site refuses that round; the others go on",
        disk_of_site_is_full,
    ),
    Fault(
        "16b",
        "the disk of a site's ledger is full (a file system of 8 MB, filled)",
        "the site refuses; the others go on; with space it takes part in the next run",
        disk_of_site_fills_up,
    ),
    Fault(
        "17",
        "a byte of the last commit's model changed",
        "the commit before it is used; " + SAME,
        commit_is_damaged,
    ),
)
