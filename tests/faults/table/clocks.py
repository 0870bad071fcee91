"""Faults: a clock is wrong."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.faults.stage import ROUNDS, SITES, Stage, refusals_of, wait_until
from tests.faults.table.fault import (
    FIRST,
    SAME,
    SECOND,
    THIRD,
    TRAINS,
    Fault,
    trained_once_a_round,
)
from tests.faults.wrong_clock import WrongClocks

from wardround.client.daemon.control_socket import ask_daemon
from wardround.server.operators.messages import RunDetails

_SERVER = "server"
_HOUR, _TOLERATED = 3600, 240  # Flower takes a site's word for up to 300 s
_WRONG_SECONDS = 8.0


def site_is_off_by(seconds: int) -> Callable[[Stage], RunDetails]:
    """Put a site's clock wrong while it trains, and right a while later."""

    def act(stage: Stage) -> RunDetails:
        clocks = WrongClocks(stage.folder / "clocks")
        stage.kill_site(SECOND)
        clocks.put(SECOND, 0)
        with stage.in_environment(clocks.environment):
            stage.start_site(SECOND)
        stage.await_sites()
        stage.arm("hold", TRAINS, 2, SECOND)
        run = stage.submit(stage.hurried)
        stage.wait_reached()
        clocks.put(SECOND, seconds)
        stage.go()
        wait_until(lambda: "not-admitted" in _troubles(stage))
        direction = "ahead of" if seconds > 0 else "behind"
        said = _doctor(stage, clocks)
        assert f"s {direction} the server's" in said, said
        wait_until(lambda: (2, SECOND) in refusals_of(_details(stage, run)))
        clocks.put(SECOND, 0)
        details = stage.finish(run)
        assert set(details.history[1].sites) == {FIRST, THIRD}
        stage.await_sites()
        with stage.line() as line:
            assert line.server().connected == len(SITES)
        stage.kill_site(SECOND)  # the next fault's has a clock of the machine
        return details

    return act


def server_jumps(stage: Stage) -> RunDetails:
    """Put the server's clock ahead, then behind, by less than sites are refused for."""
    with _server_with_clock(stage) as clocks:
        stage.arm("hold", TRAINS, 2, SECOND, name="a")
        stage.arm("hold", TRAINS, 2, THIRD, name="b")
        run = stage.submit(stage.hurried)
        stage.wait_reached("a")
        clocks.put(_SERVER, _TOLERATED)
        time.sleep(1.0)
        stage.go("a")
        stage.wait_reached("b")
        clocks.put(_SERVER, -_TOLERATED)
        time.sleep(1.0)
        stage.go("b")
        details = stage.finish(run)
        assert not refusals_of(details), refusals_of(details)
        for name in SITES:
            trained_once_a_round(stage, name, ROUNDS)
        return details


def server_is_an_hour_ahead(stage: Stage) -> RunDetails:
    """Put the server's clock ahead by so much that it refuses every site, and right again."""
    with _server_with_clock(stage) as clocks:
        stage.arm("hold", TRAINS, 2, SECOND)
        run = stage.submit(stage.plain)
        stage.wait_reached()
        clocks.put(_SERVER, _HOUR)
        stage.go()
        time.sleep(_WRONG_SECONDS)
        clocks.put(_SERVER, 0)
        details = stage.finish_as_simulated(run)
        for name in SITES:
            trained_once_a_round(stage, name, ROUNDS)
        return details


@contextmanager
def _server_with_clock(stage: Stage) -> Iterator[WrongClocks]:
    clocks = WrongClocks(stage.folder / "clocks")
    stage.kill_server()
    clocks.put(_SERVER, 0)
    with stage.in_environment(clocks.environment):
        stage.restart_server()
    stage.await_sites()
    try:
        yield clocks
    finally:
        clocks.put(_SERVER, 0)


def _troubles(stage: Stage) -> str:
    return str(ask_daemon(stage.site(SECOND), "status"))


def _details(stage: Stage, run: str) -> RunDetails:
    with stage.line() as line:
        return line.show(run)


def _doctor(stage: Stage, clocks: WrongClocks) -> str:
    """Return what the site's doctor says, whose clock is as wrong as the daemon's."""
    said = subprocess.run(
        [sys.executable, "-m", "wardround.cli", "site", "doctor", str(stage.site(SECOND))],
        env={**stage.federation._environment, **clocks.environment, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return said.stdout + said.stderr


FAULTS = (
    Fault(
        "21",
        "a site's clock 10 minutes ahead, from round 2 on",
        "refused, its status and its doctor say why; the others go on; back when it is right",
        site_is_off_by(600),
    ),
    Fault(
        "21b",
        "a site's clock 10 minutes behind, from round 2 on",
        "refused, its status and its doctor say why; the others go on; back when it is right",
        site_is_off_by(-600),
    ),
    Fault(
        "21c",
        "the server's clock jumps 4 minutes ahead, then 8 back, during a run",
        "no deadline ends early, nobody is left out, no site trains twice",
        server_jumps,
    ),
    Fault(
        "21d",
        "the server's clock is an hour ahead for 8 s, during a run",
        f"{SAME}; no site trains twice",
        server_is_an_hour_ahead,
    ),
)
