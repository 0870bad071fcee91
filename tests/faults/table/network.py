"""Faults: the network between a site and the server."""

import time

from tests.faults.proxy import BOTH, TO_SITE
from tests.faults.stage import ROUNDS, Stage
from tests.faults.table.fault import (
    FIRST,
    QUORUM,
    SAME,
    STOPPED_SECONDS,
    THIRD,
    TRAINS,
    Fault,
    one_was_late,
    trained_once_a_round,
)

from wardround.server.control_api.messages import RunDetails


def site_is_cut_off(stage: Stage) -> RunDetails:
    stage.arm("hold", TRAINS, 2, THIRD)
    run = stage.submit(stage.hurried)
    stage.wait_reached()
    stage.proxies[THIRD].lose(BOTH)
    stage.go()
    time.sleep(STOPPED_SECONDS)
    stage.proxies[THIRD].mend()
    return one_was_late(stage, run)


def all_are_cut_off(stage: Stage) -> RunDetails:
    stage.arm("hold", TRAINS, 2, FIRST)
    run = stage.submit(stage.hurried)
    stage.wait_reached()
    for proxy in stage.proxies.values():
        proxy.lose(BOTH)
    stage.go()
    # Those that had answered before count; fewer than two is no quorum.
    details = stage.await_end(run)
    assert details.summary.state == "failed", details.summary.state
    assert "needs 2" in details.summary.message, details.summary.message
    for proxy in stage.proxies.values():
        proxy.mend()
    stage.await_sites()
    with stage.line() as line:
        line.resume(run)
    return stage.finish(run)


def answers_to_site_are_lost(stage: Stage) -> RunDetails:
    stage.arm("hold", TRAINS, 2, THIRD)
    run = stage.submit(stage.plain)
    stage.wait_reached()
    stage.proxies[THIRD].lose(TO_SITE)
    stage.go()
    time.sleep(STOPPED_SECONDS / 2)
    stage.proxies[THIRD].mend()
    details = stage.finish_as_simulated(run)
    trained_once_a_round(stage, THIRD, ROUNDS)
    return details


FAULTS = (
    Fault("10", "network to one site cut for 20 s", QUORUM, site_is_cut_off),
    Fault(
        "11",
        "network to all sites cut",
        "the run fails and names the missing quorum; resumed, it finishes",
        all_are_cut_off,
    ),
    Fault(
        "12",
        "the server's words to one site are lost for 10 s",
        f"{SAME}; the site does not train twice",
        answers_to_site_are_lost,
    ),
)
