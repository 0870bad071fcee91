"""A site's daemon as a real process, before a real link: what it does, and what it survives."""

import contextlib
import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from wardround.client.enrolment import join
from wardround.client.local_control import ask_daemon
from wardround.client.status_board import DaemonStatus
from wardround.common.flower.serverapp import Entrance, LinkGrid, open_run
from wardround.common.orders import EVALUATE, INTRODUCE, TRAIN, Order, new_run, pack_order
from wardround.common.parameters import Parameters, digest, read_parameters
from wardround.common.study import Study, parse_study
from wardround.common.update import (
    SiteUpdate,
    unpack_evaluation,
    unpack_introduction,
    unpack_update,
)
from wardround.server.collection import Answer, Mailbox, Node
from wardround.server.gates import SECRET_HEADER
from wardround.server.installation import init_server
from wardround.server.invitations import invite
from wardround.server.link_address import LINK_FOLDER, read_address, wait_for_link

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX")
WAIT_SECONDS = 50.0


def wait_until(what: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def make_study(steps: int = 4) -> Study:
    return parse_study(
        {
            "study": {"name": "daemons", "task": "classification"},
            "data": {
                "kind": "table",
                "classes": ["no", "yes"],
                "covariates": [{"name": "a"}, {"name": "b"}],
            },
            "model": {"network": "mlp", "features": [8]},
            "training": {"optimiser": "sgd", "learning_rate": 0.1, "local_steps": steps},
            "federation": {"rounds": 3},
            "evaluation": {"keep": "last"},
        }
    )


def introduction(study: Study) -> RecordDict:
    return RecordDict({"order": ConfigRecord({"digest": study.digest})})


QUICK = make_study()
LONG = make_study(steps=2_000_000)


def write_site(folder: Path, *approved: Study) -> None:
    generator = np.random.default_rng(0)
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient", "label", "split", "a", "b"])
        for number in range(40):
            a, b = generator.normal(loc=number % 2, size=2)
            split = ("train", "train", "train", "validation", "test")[number // 2 % 5]
            writer.writerow([f"CANARYPATIENT{number}", number % 2, split, a, b])
    digests = json.dumps([study.digest for study in approved])
    (folder / "policy.toml").write_text(
        "privacy_required = false\nsmallest_cohort = 10\nsmallest_cell = 1\n"
        f'metrics = "sums"\napproved = {digests}\n'
    )


@dataclass(slots=True)
class Deployment:
    """A server folder with its link process, and site folders with their daemons."""

    folder: Path
    port: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def server(self) -> Path:
        return self.folder / "server"

    def site(self, name: str) -> Path:
        return self.folder / name

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def spawn(self, name: str, *words: object, **more: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *map(str, words)],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def start_link(self) -> subprocess.Popen[bytes]:
        before = read_address(self.server)
        process = self.spawn("link", "wardround.server.link_process", self.server)
        assert wait_for_link(self.server, before, lambda: process.poll() is not None)
        return process

    def start_site(self, name: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        words = ("wardround.cli", "site", "start", self.site(name), *options)
        return self.spawn(name, *words, **environment)

    def status(self, name: str) -> DaemonStatus:
        return DaemonStatus.from_json(ask_daemon(self.site(name), "status"))

    def entrance(self) -> Entrance:
        address = read_address(self.server)
        assert address is not None
        lock = self.server / LINK_FOLDER / "taking-up.lock"
        header = (SECRET_HEADER, address.secret)
        return Entrance(address.host_and_port, header, lambda: True, lock)

    @contextmanager
    def run(self, study: Study) -> Iterator["Round"]:
        with open_run(self.entrance(), study.to_json(), new_run()) as (grid, _):
            wait_until(lambda: grid.site_names())
            yield Round(grid, study, new_run())

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@dataclass(frozen=True, slots=True)
class Round:
    """A run of a study, asked of one site."""

    grid: LinkGrid
    study: Study
    name: str

    def ask(self, kind: str, content: object, seconds: float = WAIT_SECONDS) -> Answer:
        (node,) = (Node(node, site, 0) for node, site in self.grid.site_names().items())
        question = content if callable(content) else lambda: content
        (answer,) = Mailbox(self.grid).ask([node], kind, question, "round 1", seconds)
        return answer

    def order(self, number: int = 1) -> Order:
        return Order(self.study.digest, self.name, number, initial_model(self.study))

    def train(self, number: int = 1) -> SiteUpdate:
        answer = self.ask(TRAIN, lambda: pack_order(self.order(number)))
        assert answer.content is not None, answer.reason
        return unpack_update(answer.content, self.study)


def initial_model(study: Study) -> Parameters:
    from wardround.common.networks import build_network

    return read_parameters(build_network(study, 0))


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    made = Deployment(tmp_path, free_port())
    init_server(made.server, "lab", ["localhost"], "127.0.0.1", made.port)
    made.start_link()
    join(invite(made.server, "north"), made.site("north"))
    write_site(made.site("north"), QUICK, LONG)
    try:
        yield made
    finally:
        made.close()


def test_a_daemon_joins_introduces_itself_trains_evaluates_and_ends_at_sigterm(
    deployment: Deployment,
) -> None:
    site = deployment.start_site("north")
    with deployment.run(QUICK) as asked:
        said = asked.ask(INTRODUCE, introduction(QUICK))
        assert said.content is not None
        assert unpack_introduction(said.content).site == "north"
        update = asked.train()
        assert update.updates == 4
        judged = asked.ask(EVALUATE, lambda: pack_order(asked.order()))
        assert judged.content is not None
        assert unpack_evaluation(judged.content, QUICK).site == "north"
    status = deployment.status("north")
    assert status.answered == 3
    assert status.refused == 0
    assert status.last is not None
    assert status.last.study == "daemons"
    site.send_signal(signal.SIGTERM)
    assert site.wait(30) == 0
    assert not (deployment.site("north") / "site.sock").exists()
    assert "CANARY" not in deployment.log("north") + deployment.log("link")


def test_a_study_that_nobody_approved_is_refused_shown_and_after_approval_done(
    deployment: Deployment, wardround: Callable[..., object]
) -> None:
    folder = deployment.site("north")
    write_site(folder)
    deployment.start_site("north")
    with deployment.run(QUICK) as asked:
        refused = asked.ask(INTRODUCE, introduction(QUICK))
        assert refused.refusal is not None
        assert (refused.refusal.code, refused.refusal.reason) == ("policy", "")
        listed = json.loads(wardround("site", "pending", folder, "--json").out)  # type: ignore[attr-defined]
        assert [one["digest"] for one in listed] == [QUICK.digest]
        assert wardround("site", "approve", QUICK.digest[:12], "--site", folder).code == 0  # type: ignore[attr-defined]
        answered = asked.ask(INTRODUCE, introduction(QUICK))
        assert answered.content is not None
        assert wardround("site", "reject", QUICK.digest, "--site", folder).code == 0  # type: ignore[attr-defined]
        again = asked.ask(TRAIN, lambda: pack_order(asked.order()))
        assert again.refusal is not None
        assert again.refusal.code == "policy"


def test_a_message_over_which_two_workers_die_is_refused_and_the_next_is_answered(
    deployment: Deployment,
) -> None:
    site = deployment.start_site("north")
    with deployment.run(LONG) as asked:
        killer = threading.Thread(target=lambda: kill_workers(deployment, site.pid, 2))
        killer.start()
        answer = asked.ask(TRAIN, lambda: pack_order(asked.order()))
        killer.join()
        assert answer.refusal is not None
        assert answer.refusal.code == "training"
    kill_workers(deployment, site.pid, 1)  # while it waits
    with deployment.run(QUICK) as asked:
        assert asked.train().updates == 4
    assert deployment.status("north").worker_starts == 4


def kill_workers(deployment: Deployment, daemon: int, times: int) -> None:
    killed, order = [0], deployment.site("north") / "state" / "post" / "order.parcel"
    wait_until(lambda: times == 1 or order.exists())  # it is whole, so it is being worked on
    for _ in range(times):
        wait_until(lambda: child_of(daemon) not in killed)
        time.sleep(0.5)
        killed.append(child_of(daemon))
        os.kill(killed[-1], signal.SIGKILL)


def child_of(process: int) -> int:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(listed[0]) if listed else 0


def test_a_daemon_that_is_killed_is_back_at_once_and_gives_the_same_answer_without_training(
    deployment: Deployment,
) -> None:
    site = deployment.start_site("north")
    with deployment.run(QUICK) as asked:
        first = asked.train()
        site.kill()
        site.wait()
        began = time.monotonic()
        deployment.start_site("north")
        second = asked.train()
        assert digest(first.parameters) == digest(second.parameters)
        assert second.seconds == first.seconds  # of the one training that there was
        assert time.monotonic() - began < 40  # Flower's own would wait for a minute
    entries = (deployment.site("north") / "audit" / "log.jsonl").read_text()
    assert entries.count('"kind":"update"') == 2  # each time it left


def test_a_daemon_that_is_killed_at_work_is_asked_again(deployment: Deployment) -> None:
    site = deployment.start_site("north")
    with deployment.run(LONG) as asked:
        answers: list[Answer] = []
        asking = threading.Thread(
            target=lambda: answers.append(asked.ask(TRAIN, lambda: pack_order(asked.order())))
        )
        asking.start()
        wait_until(lambda: running(deployment, "north"))
        site.kill()
        site.wait()
        write_site(deployment.site("north"), QUICK)  # so that the answer is a quick refusal
        deployment.start_site("north")
        asking.join(WAIT_SECONDS)
        assert answers
        assert answers[0].refusal is not None
        assert answers[0].refusal.code == "policy"


def running(deployment: Deployment, name: str) -> bool:
    try:
        return deployment.status(name).work is not None
    except Exception:
        return False


def test_a_daemon_survives_the_restart_of_its_server(deployment: Deployment) -> None:
    deployment.start_site("north")
    with deployment.run(QUICK) as asked:
        first = asked.train()
    link = deployment.processes[0]
    link.kill()
    link.wait()
    wait_until(lambda: not deployment.status("north").connected_since)
    deployment.start_link()
    with deployment.run(QUICK) as again:
        second = again.train()
        assert digest(first.parameters) == digest(second.parameters)
    troubles = {trouble.code for trouble in deployment.status("north").troubles}
    assert troubles <= {"no-connection", "refused", "not-admitted"}


def test_a_daemon_that_is_told_to_stop_gives_up_long_work_in_time(
    deployment: Deployment, wardround: Callable[..., object]
) -> None:
    site = deployment.start_site("north")
    with deployment.run(LONG) as asked:
        asking = threading.Thread(
            target=lambda: asked.ask(TRAIN, lambda: pack_order(asked.order()), 5.0)
        )
        asking.start()
        wait_until(lambda: running(deployment, "north"))
        began = time.monotonic()
        assert wardround("site", "stop", deployment.site("north")).code == 0  # type: ignore[attr-defined]
        assert site.wait(10) == 0
        assert time.monotonic() - began < 36
        asking.join()


def test_a_second_daemon_of_a_site_is_refused(deployment: Deployment) -> None:
    deployment.start_site("north")
    wait_until(lambda: (deployment.site("north") / "site.sock").exists())
    second = subprocess.run(
        [sys.executable, "-m", "wardround.cli", "site", "start", deployment.site("north")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 3
    assert "another daemon serves" in second.stderr
    assert "site stop" in second.stderr


def test_a_server_of_another_authority_is_named_as_what_it_is_and_sent_nothing(
    deployment: Deployment, tmp_path: Path
) -> None:
    other = Deployment(tmp_path / "other", free_port())
    init_server(other.server, "other lab", ["localhost"], "127.0.0.1", other.port)
    shutil.copy(other.server / "ca" / "ca.crt", deployment.site("north") / "keys" / "ca.crt")
    site = deployment.start_site("north")
    wait_until(lambda: "code=server-certificate" in deployment.log("north"))
    assert site.poll() is None  # it goes on trying, and says so
    status = deployment.status("north")
    assert not status.connected_since
    assert status.troubles[-1].code == "server-certificate"


def test_a_message_of_an_unknown_kind_and_one_without_a_study_are_refused(
    deployment: Deployment,
) -> None:
    deployment.start_site("north")
    with deployment.run(QUICK) as asked:
        unknown = asked.ask("query.manifest", introduction(QUICK))
        assert unknown.refusal is not None
        assert unknown.refusal.code == "input"
    with open_run(deployment.entrance(), "{}", new_run()) as (grid, _):
        empty = Round(grid, QUICK, new_run()).ask(INTRODUCE, introduction(QUICK))
        assert empty.refusal is not None
        assert empty.refusal.code == "study"
    assert deployment.status("north").refused == 2


def test_a_message_beyond_the_policy_is_refused_and_the_next_is_answered(
    deployment: Deployment,
) -> None:
    policy = deployment.site("north") / "policy.toml"
    policy.write_text(policy.read_text() + "largest_message_megabytes = 2\n")
    deployment.start_site("north")
    with deployment.run(QUICK) as asked:
        import torch

        huge = {"w": torch.rand(2_000_000)}
        order = Order(QUICK.digest, asked.name, 1, huge)
        refused = asked.ask(TRAIN, lambda: pack_order(order))
        assert refused.refusal is not None
        assert refused.refusal.code == "input"
        assert asked.train().updates == 4


def test_a_daemon_goes_through_a_proxy(deployment: Deployment) -> None:
    with tunnel() as (proxy, seen):
        address = f"http://127.0.0.1:{proxy}"
        deployment.start_site("north", HTTPS_PROXY=address, NO_PROXY="", no_proxy="")
        with deployment.run(QUICK) as asked:
            assert asked.train().updates == 4
    assert set(seen) == {f"CONNECT localhost:{deployment.port}"}


@contextmanager
def tunnel() -> Iterator[tuple[int, list[str]]]:
    """A proxy that knows CONNECT alone, as a hospital's does."""
    seen: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with sink, contextlib.suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)

    def connect(caller: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += caller.recv(4096)
        words = head.decode().split()
        seen.append(f"{words[0]} {words[1]}")
        host, _, port = words[1].rpartition(":")
        server = socket.create_connection((host, int(port)))
        caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for ends in ((caller, server), (server, caller)):
            threading.Thread(target=carry, args=ends, daemon=True).start()

    def serve() -> None:
        with contextlib.suppress(OSError):  # until the listener is closed
            while True:
                connect(listener.accept()[0])

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1]), seen
    finally:
        listener.close()
