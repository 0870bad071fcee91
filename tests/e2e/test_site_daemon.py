"""A site's daemon as a real process, before a real link: what it does, and what it survives."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from flwr.app import ConfigRecord, RecordDict
from tests.support.stage import (
    CANARY,
    PATIENCE_SECONDS,
    WARDROUND,
    Deployment,
    deployed,
    table_study,
    wait_until,
    write_table,
)

from wardround.client.site.credentials import load_site_tls
from wardround.client.site.enrolment import renew
from wardround.common.flower.serverapp.grid import Entrance, LinkGrid, open_run
from wardround.common.messages.instructions import (
    DESCRIBE,
    EVALUATE,
    TRAIN,
    Instruction,
    new_run,
    pack_instruction,
)
from wardround.common.messages.replies import (
    SiteUpdate,
    unpack_evaluation,
    unpack_site_info,
    unpack_update,
)
from wardround.common.parameters.arithmetic import digest
from wardround.common.parameters.schema import Parameters, read_parameters
from wardround.common.study.study import Study
from wardround.server.link.address import LINK_FOLDER, read_address
from wardround.server.link.gates import SECRET_HEADER
from wardround.server.sites.exchange import Exchange, Node, Reply

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a daemon runs under POSIX")


def site_info(study: Study) -> RecordDict:
    return RecordDict({"instruction": ConfigRecord({"digest": study.digest})})


QUICK = table_study("daemons", rounds=3)
LONG = table_study("daemons", steps=2_000_000, rounds=3)


def write_site(folder: Path, *approved: Study) -> None:
    write_table(folder, 40)
    digests = json.dumps([study.digest for study in approved])
    (folder / "policy.toml").write_text(
        "privacy_required = false\nsmallest_cohort = 10\nsmallest_cell = 1\n"
        f'metrics = "sums"\napproved = {digests}\n'
    )


@dataclass(frozen=True, slots=True)
class Round:
    """A run of a study, asked of one site."""

    grid: LinkGrid
    study: Study
    name: str

    def ask(self, kind: str, content: object, seconds: float = PATIENCE_SECONDS) -> Reply:
        (node,) = (Node(node, site, 0) for node, site in self.grid.site_names().items())
        question = content if callable(content) else lambda: content
        (reply,) = Exchange(self.grid).ask([node], kind, question, "round 1", seconds)
        return reply

    def instruction(self, number: int = 1) -> Instruction:
        return Instruction(self.study.digest, self.name, number, initial_model(self.study))

    def train(self, number: int = 1) -> SiteUpdate:
        reply = self.ask(TRAIN, lambda: pack_instruction(self.instruction(number)))
        assert reply.content is not None, reply.reason
        return unpack_update(reply.content, self.study)


@contextmanager
def asking(deployment: Deployment, study: Study) -> Iterator[Round]:
    """Open a run of a study, once a site is connected."""
    with open_run(entrance(deployment), study.to_json(), new_run()) as (grid, _):
        wait_until(lambda: grid.site_names())
        yield Round(grid, study, new_run())


def entrance(deployment: Deployment) -> Entrance:
    address = read_address(deployment.server)
    assert address is not None
    lock = deployment.server / LINK_FOLDER / "taking-up.lock"
    header = (SECRET_HEADER, address.secret)
    return Entrance(address.host_and_port, header, lambda: True, lock)


def initial_model(study: Study) -> Parameters:
    from wardround.common.models.networks.registry import build_network

    return read_parameters(build_network(study, 0))


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with deployed(tmp_path) as made:
        made.start_link()
        write_site(made.join("north"), QUICK, LONG)
        yield made


def test_a_daemon_joins_sends_its_site_info_trains_evaluates_and_ends_at_sigterm(
    deployment: Deployment,
) -> None:
    site = deployment.start_site("north")
    with asking(deployment, QUICK) as asked:
        said = asked.ask(DESCRIBE, site_info(QUICK))
        assert said.content is not None
        assert unpack_site_info(said.content).site == "north"
        update = asked.train()
        assert update.updates == 4
        judged = asked.ask(EVALUATE, lambda: pack_instruction(asked.instruction()))
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
    assert CANARY not in deployment.log("north") + deployment.log("link")


def test_a_study_that_nobody_approved_is_refused_shown_and_after_approval_done(
    deployment: Deployment, wardround: Callable[..., object]
) -> None:
    folder = deployment.site("north")
    write_site(folder)
    deployment.start_site("north")
    with asking(deployment, QUICK) as asked:
        refused = asked.ask(DESCRIBE, site_info(QUICK))
        assert refused.refusal is not None
        assert (refused.refusal.code, refused.refusal.reason) == ("approval", "")
        listed = json.loads(wardround("site", "pending", folder, "--json").out)  # type: ignore[attr-defined]
        assert [one["digest"] for one in listed] == [QUICK.digest]
        assert wardround("site", "approve", QUICK.digest[:16], "--site", folder).code == 0  # type: ignore[attr-defined]
        answered = asked.ask(DESCRIBE, site_info(QUICK))
        assert answered.content is not None
        assert wardround("site", "reject", QUICK.digest, "--site", folder).code == 0  # type: ignore[attr-defined]
        again = asked.ask(TRAIN, lambda: pack_instruction(asked.instruction()))
        assert again.refusal is not None
        assert again.refusal.code == "rejected"


def test_a_message_over_which_two_workers_die_is_refused_and_the_next_is_answered(
    deployment: Deployment,
) -> None:
    site = deployment.start_site("north")
    with asking(deployment, LONG) as asked:
        killer = threading.Thread(target=lambda: kill_workers(deployment, site.pid, 2))
        killer.start()
        reply = asked.ask(TRAIN, lambda: pack_instruction(asked.instruction()))
        killer.join()
        assert reply.refusal is not None
        assert reply.refusal.code == "training"
    kill_workers(deployment, site.pid, 1)  # while it waits
    with asking(deployment, QUICK) as asked:
        assert asked.train().updates == 4
    assert deployment.status("north").worker_starts == 4


def kill_workers(deployment: Deployment, daemon: int, times: int) -> None:
    killed, instruction = [0], deployment.site("north") / "state" / "jobs" / "instruction.message"
    wait_until(lambda: times == 1 or instruction.exists())  # it is whole, so it is being worked on
    for _ in range(times):
        wait_until(lambda: child_of(daemon) not in killed)
        time.sleep(0.5)
        killed.append(child_of(daemon))
        os.kill(killed[-1], signal.SIGKILL)


def child_of(process: int) -> int:
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(listed[0]) if listed else 0


def test_a_daemon_that_is_killed_is_back_at_once_and_gives_the_same_reply_without_training(
    deployment: Deployment,
) -> None:
    site = deployment.start_site("north")
    with asking(deployment, QUICK) as asked:
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
    with asking(deployment, LONG) as asked:
        replies: list[Reply] = []
        waiting = threading.Thread(
            target=lambda: replies.append(
                asked.ask(TRAIN, lambda: pack_instruction(asked.instruction()))
            )
        )
        waiting.start()
        wait_until(lambda: running(deployment, "north"))
        site.kill()
        site.wait()
        write_site(deployment.site("north"), QUICK)  # so that the answer is a quick refusal
        deployment.start_site("north")
        waiting.join(PATIENCE_SECONDS)
        assert replies
        assert replies[0].refusal is not None
        assert replies[0].refusal.code == "approval"


def running(deployment: Deployment, name: str) -> bool:
    try:
        return deployment.status(name).work is not None
    except Exception:
        return False


def test_a_daemon_survives_the_restart_of_its_server(deployment: Deployment) -> None:
    deployment.start_site("north")
    with asking(deployment, QUICK) as asked:
        first = asked.train()
    link = deployment.processes[0]
    link.kill()
    link.wait()
    wait_until(lambda: not deployment.status("north").connected_since)
    deployment.start_link()
    with asking(deployment, QUICK) as again:
        second = again.train()
        assert digest(first.parameters) == digest(second.parameters)
    troubles = {trouble.code for trouble in deployment.status("north").troubles}
    assert troubles <= {"no-connection", "refused", "not-admitted"}


@pytest.mark.long
def test_a_daemon_at_long_work_renews_its_certificate_and_gives_up_in_time_when_told_to_stop(
    deployment: Deployment, wardround: Callable[..., object]
) -> None:
    site, folder = deployment.start_site("north"), deployment.site("north")
    with asking(deployment, LONG) as asked:
        waiting = threading.Thread(
            target=lambda: asked.ask(TRAIN, lambda: pack_instruction(asked.instruction()), 15.0)
        )
        waiting.start()
        wait_until(lambda: running(deployment, "north"))
        let_certificate_become_due(deployment, folder)
        wait_until(lambda: load_site_tls(folder).expires > datetime.now(UTC) + timedelta(days=89))
        assert running(deployment, "north")
        began = time.monotonic()
        assert wardround("site", "stop", folder).code == 0  # type: ignore[attr-defined]
        assert site.wait(10) == 0
        assert time.monotonic() - began < 36
        waiting.join()


def let_certificate_become_due(deployment: Deployment, folder: Path) -> None:
    """Give a site a certificate of 20 minutes that began an hour ago: a third is not left."""
    settings = deployment.server / "server.toml"
    text = settings.read_text()
    settings.write_text(text.replace("certificate_days = 90.0", f"certificate_days = {1 / 72}"))
    renew(folder)
    assert load_site_tls(folder).expires < datetime.now(UTC) + timedelta(minutes=21)
    settings.write_text(text)


def test_a_second_daemon_of_a_site_is_refused(deployment: Deployment) -> None:
    deployment.start_site("north")
    wait_until(lambda: (deployment.site("north") / "site.sock").exists())
    second = subprocess.run(
        [*WARDROUND, "site", "start", deployment.site("north")],
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
    other = Deployment(tmp_path / "other")
    other.make_server()
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
    with asking(deployment, QUICK) as asked:
        unknown = asked.ask("query.manifest", site_info(QUICK))
        assert unknown.refusal is not None
        assert unknown.refusal.code == "input"
    with open_run(entrance(deployment), "{}", new_run()) as (grid, _):
        empty = Round(grid, QUICK, new_run()).ask(DESCRIBE, site_info(QUICK))
        assert empty.refusal is not None
        assert empty.refusal.code == "study"
    assert deployment.status("north").refused == 2


def test_a_message_beyond_the_policy_is_refused_and_the_next_is_answered(
    deployment: Deployment,
) -> None:
    policy = deployment.site("north") / "policy.toml"
    policy.write_text(policy.read_text() + "largest_message_megabytes = 2\n")
    deployment.start_site("north")
    with asking(deployment, QUICK) as asked:
        import torch

        huge = {"w": torch.rand(2_000_000)}
        instruction = Instruction(QUICK.digest, asked.name, 1, huge)
        refused = asked.ask(TRAIN, lambda: pack_instruction(instruction))
        assert refused.refusal is not None
        assert refused.refusal.code == "input"
        assert asked.train().updates == 4


def test_a_site_joins_and_trains_through_a_proxy_and_never_dials_the_server_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No machine knows this name but the proxy: who dials without it gets nowhere.
    with deployed(tmp_path, "server.invalid") as deployment:
        deployment.start_link()
        proxy = deployment.start_proxy()
        surroundings = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy}", "NO_PROXY": "", "no_proxy": ""}
        with monkeypatch.context() as here:
            for name, value in surroundings.items():
                here.setenv(name, value)
            write_site(deployment.join("north"), QUICK)
        site = deployment.start_site("north", **surroundings)
        dialled: set[int] = set()
        with asking(deployment, QUICK) as asked:
            assert asked.train().updates == 4
            for process in (psutil.Process(site.pid), *psutil.Process(site.pid).children()):
                dialled |= {line.raddr.port for line in process.net_connections() if line.raddr}
        assert dialled == {proxy}
        asked_for = deployment.log("proxy").splitlines()[1:]
        assert set(asked_for) == {f"CONNECT server.invalid:{deployment.port}"}
        assert len(asked_for) > 2  # joining, and the daemon
