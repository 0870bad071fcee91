"""The contract with what a site uses of Flower: how a site takes its seat."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.link.fleet_in_memory import Fleet

from wardround.common.flower.supernode.fleet_client import FleetError, RunEndedError
from wardround.common.flower.supernode.supernode import SuperNode
from wardround.common.flower.supernode.transfers import StoppedError


def test_a_site_that_was_killed_ends_its_old_connection_instead_of_waiting_for_its_end(
    fleet: Fleet, node: SuperNode, tmp_path: Path, heard: list[str]
) -> None:
    (tmp_path / "node").write_text("42")
    back = SuperNode(fleet, tmp_path, threading.Event(), heard.append)  # type: ignore[arg-type]
    fleet.refusals = [FleetError("still-connected")]
    back.join()
    assert fleet.called == ["ActivateNode", "DeactivateNode", "ActivateNode"]
    assert heard == [""]


def test_a_site_that_is_refused_tries_again_and_never_ends(
    fleet: Fleet, node: SuperNode, heard: list[str]
) -> None:
    fleet.refusals = [FleetError("still-connected"), FleetError("refused"), RunEndedError()]
    node.join()
    assert heard == ["still-connected", "refused", "refused", ""]
    assert node.node_id == 42


def test_a_site_that_is_told_to_stop_stops_waiting_for_its_server(
    fleet: Fleet, tmp_path: Path, heard: list[str]
) -> None:
    stop = threading.Event()
    stop.set()
    fleet.refusals = [FleetError("no-connection")] * 2
    with pytest.raises(StoppedError):
        SuperNode(fleet, tmp_path, stop, heard.append).join()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("refusal", "is_given_up"),
    [
        (RunEndedError(is_withdrawn=True), True),
        (RunEndedError(), False),  # its process fell, or the link is another one
        (FleetError("no-connection"), False),
    ],
)
def test_a_site_at_work_asks_whether_it_is_still_wanted(
    fleet: Fleet,
    node: SuperNode,
    refusal: Exception,
    is_given_up: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wardround.common.flower.supernode.supernode.BEAT_SECONDS", 0.01)
    node.join()
    with node.working_for(7) as is_withdrawn:
        _until(lambda: fleet.called.count("GetRun") > 2)
        assert not is_withdrawn()
        fleet.refusals = [refusal]
        _until(lambda: not fleet.refusals)
        asked = fleet.called.count("GetRun")
        _until(lambda: is_withdrawn() or fleet.called.count("GetRun") > asked + 2)
        assert is_withdrawn() == is_given_up
    with node.working_for(8) as is_withdrawn:
        assert not is_withdrawn()


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
