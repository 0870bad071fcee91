"""The contract with what a site uses of Flower: how a site takes its seat."""

import threading
from pathlib import Path

import pytest
from tests.support.fleet_in_memory import Fleet

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
