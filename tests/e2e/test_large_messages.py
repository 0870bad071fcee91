"""A model in many pieces between a real link and a real daemon, killed while it travels."""

import contextlib
import json
import os
import socket
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.stage import Deployment, deployed, table_study, wait_until, write_table

from wardround.common.flower.serverapp.grid import Entrance, open_run
from wardround.common.messages.instructions import TRAIN, Instruction, new_run, pack_instruction
from wardround.common.messages.replies import unpack_update
from wardround.common.models.networks.registry import build_network
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.server.link.address import LINK_FOLDER, read_address
from wardround.server.link.gates import SECRET_HEADER
from wardround.server.sites.exchange import Exchange, Node, Reply

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX")
# 28 MB in pieces of 1 MB. By hand: LARGE_WIDTH=2670 LARGE_PIECE=5242880 for 200 MB as they travel.
WIDTH, DEPTH = int(os.environ.get("LARGE_WIDTH", "1000")), 8
PIECE_BYTES = int(os.environ.get("LARGE_PIECE", "1000000"))
PIECES = "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE"
# What was under way when the daemon was killed is sent again, and so is what no model is.
MOST_SENT = 1.3


class Meter:
    """A TCP proxy that counts, and lets nothing through beyond an allowance until it is lifted."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.passed = {"down": 0, "up": 0}
        self.allowed = {"down": float("inf"), "up": float("inf")}
        self._may_pass = threading.Condition()
        threading.Thread(target=self._accept, daemon=True).start()

    def allow(self, way: str, more: float) -> None:
        with self._may_pass:
            self.allowed[way] = self.passed[way] + more
            self._may_pass.notify_all()

    def is_blocked(self, way: str) -> bool:
        return self.passed[way] >= self.allowed[way]

    def _accept(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                site, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for ends, way in (((site, server), "up"), ((server, site), "down")):
                    threading.Thread(target=self._pass, args=(*ends, way), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while heard := source.recv(65_536):
                with self._may_pass:
                    self._may_pass.wait_for(lambda: not self.is_blocked(way))
                    self.passed[way] += len(heard)
                target.sendall(heard)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def large_study() -> Study:
    words = tomllib.loads(table_study("large").to_toml())
    words["model"]["features"] = [WIDTH] * DEPTH
    return parse_study(words)


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with deployed(tmp_path) as made:
        made.start_link()
        folder = made.join("north")
        write_table(folder, 40)
        digests = json.dumps([large_study().digest])
        (folder / "policy.toml").write_text(
            "privacy_required = false\nsmallest_cohort = 10\nsmallest_cell = 1\n"
            f'metrics = "sums"\napproved = {digests}\n'
        )
        yield made


@contextmanager
def asked_in_a_thread(deployment: Deployment, study: Study) -> Iterator[list[Reply]]:
    """Have the site train, and give a list that its answer comes to."""
    address = read_address(deployment.server)
    assert address is not None
    lock = deployment.server / LINK_FOLDER / "taking-up.lock"
    entrance = Entrance(address.host_and_port, (SECRET_HEADER, address.secret), lambda: True, lock)
    model, replies = read_parameters(build_network(study, 0)), list[Reply]()
    with open_run(entrance, study.to_json(), new_run()) as (grid, _):
        wait_until(lambda: grid.site_names())
        nodes = [Node(node, site, 0) for node, site in grid.site_names().items()]
        instruction = Instruction(study.digest, new_run(), 1, model)

        def ask() -> None:
            replies.extend(
                Exchange(grid).ask(nodes, TRAIN, lambda: pack_instruction(instruction), "round 1")
            )

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        yield replies
        asking.join(60)


@pytest.mark.long
def test_a_daemon_killed_in_the_middle_of_a_large_model_goes_on_from_there_both_ways(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"flwr.app.message.array.{PIECES}", PIECE_BYTES)
    study, meter = large_study(), Meter(deployment.port)
    size = sum(one.numel() * 4 for one in read_parameters(build_network(study, 0)).values())
    line = ("--server", f"localhost:{meter.port}")
    pieces = {PIECES: str(PIECE_BYTES)}
    site = deployment.start_site("north", *line, **pieces)
    wait_until(lambda: (deployment.site("north") / "site.sock").exists())
    meter.allow("down", 0.5 * size)
    with asked_in_a_thread(deployment, study) as replies:
        before = dict(meter.passed)
        wait_until(lambda: meter.is_blocked("down"))
        site.kill()
        site.wait()
        meter.allow("down", float("inf"))
        meter.allow("up", 0.5 * size)
        site = deployment.start_site("north", *line, **pieces)
        wait_until(lambda: meter.is_blocked("up"))
        site.kill()
        site.wait()
        meter.allow("up", float("inf"))
        deployment.start_site("north", *line, **pieces)
        wait_until(lambda: replies, 120)
    sent = {way: (meter.passed[way] - before[way]) / size for way in ("down", "up")}
    Path(os.environ.get("LARGE_REPORT", os.devnull)).write_text(f"{size} {sent}")
    assert all(1.0 < times < MOST_SENT for times in sent.values()), sent
    (reply,) = replies
    assert reply.content is not None, reply.reason
    assert unpack_update(reply.content, study).updates == 4
    entries = (deployment.site("north") / "audit" / "log.jsonl").read_text()
    assert entries.count('"kind":"update"') == 2  # each time it left; it was trained once
