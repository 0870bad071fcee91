"""Faults: the network between a site and the server."""

import time

from tests.faults.lossy import LossyLink
from tests.faults.proxy import BOTH, TO_SITE, Weather
from tests.faults.stage import ROUNDS, SITES, Stage
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

from wardround.server.operators.messages import RunDetails

_DELAY_SECONDS, _LOST_SHARE, _FEWEST = 0.05, 0.05, 20
_MOODY = Weather(delay_seconds=0.02, stall_share=0.03, stall_seconds=1.0, break_share=0.01)


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


def replies_to_site_are_lost(stage: Stage) -> RunDetails:
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


def network_is_lossy(stage: Stage) -> RunDetails:
    """Have every packet of every site take 50 ms each way, and lose 5 of 100 for good."""
    link = LossyLink(stage.port, _DELAY_SECONDS, _LOST_SHARE)
    try:
        for proxy in stage.proxies.values():
            proxy.reroute(link.connect)
        stage.await_sites()
        details = stage.finish_as_simulated(stage.submit(stage.plain))
    finally:
        for proxy in stage.proxies.values():
            proxy.mend()
        link.close()
    assert link.lost > _FEWEST, f"{link.lost} of {link.passed + link.lost} packets were lost"
    for name in SITES:
        trained_once_a_round(stage, name, ROUNDS)
    return details


def network_is_moody(stage: Stage) -> RunDetails:
    """Have connections of every site stall and break in the middle of what they carry."""
    broken = -sum(proxy.broken for proxy in stage.proxies.values())
    for proxy in stage.proxies.values():
        proxy.worsen(_MOODY)
    details = stage.finish_as_simulated(stage.submit(stage.plain))
    broken += sum(proxy.broken for proxy in stage.proxies.values())
    assert broken, "no connection was broken"
    for name in SITES:
        trained_once_a_round(stage, name, ROUNDS)
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
        replies_to_site_are_lost,
    ),
    Fault(
        "14",
        "packets of all sites take 50 ms each way, and 5 % are lost (a lossy link of the kernel)",
        f"{SAME}; no site trains twice",
        network_is_lossy,
    ),
    Fault(
        "14b",
        "connections of all sites stall for 1 s and break: 3 % and 1 % of what they carry",
        f"{SAME}; no site trains twice",
        network_is_moody,
    ),
)
