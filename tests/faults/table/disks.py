"""Faults: a disk is full, or no longer holds what was written."""

from tests.faults.stage import ROUNDS, Stage, flip_byte, refusals_of, wait_until
from tests.faults.table.fault import COMMITS, FOLDS, SAME, SECOND, TRAINS, Fault

from wardround.server.control_api.messages import RunDetails
from wardround.server.run_folder import RunFolder


def disk_of_server_is_full(stage: Stage) -> RunDetails:
    stage.arm("full disk", COMMITS, 5)
    details = stage.finish_as_simulated(stage.submit(stage.plain))
    assert details.starts == 2, f"its process was started {details.starts} times"
    return details


def disk_of_site_is_full(stage: Stage) -> RunDetails:
    stage.arm("full disk", "client.privacy.ledger_file:_write", 5, SECOND)
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


FAULTS = (
    Fault(
        "15",
        "no space left when the server commits (error injected)",
        f"no commit; {SAME}",
        disk_of_server_is_full,
    ),
    Fault(
        "16",
        "no space left when a site charges (error injected)",
        "the site refuses that round; the others go on",
        disk_of_site_is_full,
    ),
    Fault(
        "17",
        "a byte of the last commit's model changed",
        "the commit before it is used; " + SAME,
        commit_is_damaged,
    ),
)
