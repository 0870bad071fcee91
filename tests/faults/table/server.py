"""Faults: the server's processes are killed or stopped, or there are two servers."""

import signal
import time
from collections.abc import Callable

from tests.faults.stage import ROUNDS, SITES, Stage
from tests.faults.table.fault import (
    AGGREGATES,
    COMMITS,
    FIRST,
    FOLDS,
    SAME,
    SECOND,
    SENDS,
    STOPPED_SECONDS,
    TRAINS,
    Fault,
    refused_command,
    trained_once_a_round,
)

from wardround.server.operators.messages import RunDetails


def study_dies_at(point: str, call: int) -> Callable[[Stage], RunDetails]:
    def act(stage: Stage) -> RunDetails:
        stage.arm("die", point, call)
        details = stage.finish_as_simulated(stage.submit(stage.plain))
        assert details.starts == 2, f"its process was started {details.starts} times"
        return details

    return act


def server_dies_while_collecting(stage: Stage) -> RunDetails:
    stage.arm("die with parent", FOLDS, 5)  # in round 2, with one of three answers taken in
    run = stage.submit(stage.plain)
    stage.restart_server()
    details = stage.finish_as_simulated(run)
    for name in SITES:
        trained_once_a_round(stage, name, ROUNDS)
    return details


def link_dies_while_collecting(stage: Stage) -> RunDetails:
    stage.arm("hold", TRAINS, 2, SECOND)
    run = stage.submit(stage.plain)
    stage.wait_reached()
    stage.server_processes()["link"].kill()
    stage.go()
    details = stage.finish_as_simulated(run)
    trained_once_a_round(stage, FIRST, ROUNDS)
    return details


def server_is_stopped(stage: Stage) -> RunDetails:
    stage.arm("hold", TRAINS, 2, SECOND)
    run = stage.submit(stage.plain)
    stage.wait_reached()
    processes = stage.server_processes().values()
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    stage.go()
    time.sleep(STOPPED_SECONDS)
    stage.thaw()
    return stage.finish_as_simulated(run)


def second_server(stage: Stage) -> RunDetails:
    run = stage.submit(stage.plain)
    said = refused_command("server", "start", str(stage.federation.server))
    assert "works in" in said, said
    return stage.finish_as_simulated(run)


FAULTS = (
    Fault(
        "1", "kill -9 of a study's process before it sends a round", SAME, study_dies_at(SENDS, 2)
    ),
    Fault(
        "2",
        "kill -9 of the whole server while it collects",
        f"{SAME}; no site trains twice",
        server_dies_while_collecting,
    ),
    Fault(
        "2b",
        "kill -9 of the link while sites train",
        f"{SAME}; who had answered does not train again",
        link_dies_while_collecting,
    ),
    Fault(
        "3", "kill -9 of a study's process while it aggregates", SAME, study_dies_at(AGGREGATES, 2)
    ),
    Fault(
        "4",
        "kill -9 of a study's process between writing a model and sealing the commit",
        f"the old model, never a mixture; {SAME}",
        study_dies_at(COMMITS, 6),
    ),
    Fault("9", "SIGSTOP of the server for 20 s", SAME, server_is_stopped),
    Fault(
        "30",
        "a second server in the same folder",
        "refused at start; the run goes on",
        second_server,
    ),
)
