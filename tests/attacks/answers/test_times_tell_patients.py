"""A server that reads off how long a site works how many patients it has (0.37 s: 50, 1.7 s: 400).

The site is its daemon, with the messages of a server that notes all that it is told and when.
"""

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import Node  # noqa: TID251 - what a server sees is Flower's
from tests.support.hospitals.hospital import STUDY, context_of, instruction_for, write_site
from tests.support.link.fleet_in_memory import Fleet

from wardround.client.app import app
from wardround.client.daemon.daemon import SiteDaemon
from wardround.client.daemon.job_runner import answer_job
from wardround.client.daemon.jobs import Done, Job
from wardround.client.daemon.shutdown import StopRequest
from wardround.client.daemon.status import StatusBoard, fresh_status
from wardround.client.egress.disclosure import reduce_evaluation, reduce_update
from wardround.client.policy.policy import Policy
from wardround.client.site.folder import open_site
from wardround.common.flower.messages.message_file import MessageFile
from wardround.common.flower.messages.message_file_writer import write_message
from wardround.common.flower.site_grid import claim_identity
from wardround.common.flower.supernode.transfers import Transfers
from wardround.common.messages.instructions import new_run, pack_instruction
from wardround.common.messages.replies import SiteEvaluation, SiteUpdate

pytestmark = pytest.mark.attacks

WORK_SECONDS = 0.13


class CuriousServer(Fleet):
    """Notes what a site says of times in its answers, and when they come."""

    def __init__(self) -> None:
        super().__init__()
        self.runtimes: list[float] = []
        self.came: list[float] = []

    def PushMessages(self, request):  # type: ignore[no-untyped-def]  # noqa: N802
        self.came.append(time.monotonic())
        self.runtimes += request.clientapp_runtime_list
        return super().PushMessages(request)


class Link:
    """A site's daemon, and the server at the other end of its link."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, work: float) -> None:
        monkeypatch.setattr("wardround.client.daemon.daemon.CertificateWatch", lambda *_: None)
        self.folder, self.server, self.work = folder, CuriousServer(), work
        self.stop, self.fetched = StopRequest(), 0.0
        link = type("Link", (), {"address": "server:1"})()
        worker = type("Worker", (), {"reply": staticmethod(self._reply)})()
        board = StatusBoard(fresh_status(folder.name, "server:1", "1", 1))
        self.daemon = SiteDaemon(open_site(folder), link, worker, board, self.stop)  # type: ignore[arg-type]
        transfers = Transfers(lambda: Node(node_id=42), self._insist, threading.Event())
        node = {
            "transfers": transfers,
            "study_of": staticmethod(lambda run: STUDY.to_json()),
            "working_for": staticmethod(lambda run: nullcontext(lambda: False)),
        }
        self.daemon._node = type("SuperNode", (), node)()

    def _insist(self, ask):  # type: ignore[no-untyped-def]
        return ask(self.server)

    def _reply(self, job: Job, is_withdrawn: Callable[[], bool]) -> Done:
        self.fetched = time.monotonic()
        time.sleep(self.work)
        return answer_job(job)

    def ask(self, kind: str, content: RecordDict, tmp_path: Path) -> Message:
        """Send a message; return it as the server knows it."""
        claim_identity(7)
        message = Message(content, 42, kind, group_id="round 1")
        write_message(tmp_path / "sent.message", message)
        with MessageFile(tmp_path / "sent.message") as sent:
            envelope = sent.envelope
            self.server.objects = {one: sent.content(one) for one in envelope.object_ids}
        self.daemon._take(envelope)
        return message

    @property
    def waited(self) -> float:
        """How long after its instruction was fetched the answer came."""
        return self.server.came[-1] - self.fetched


def content_of(folder: Path, kind: str) -> RecordDict:
    if kind == "query.other":
        return RecordDict()
    return pack_instruction(instruction_for(folder))


@pytest.mark.parametrize("kind", ["query.describe", "train", "evaluate", "query.other"])
@pytest.mark.parametrize("approved", [True, False], ids=["answer", "refusal"])
def test_no_answer_says_how_long_the_site_worked_or_when_it_was_made(
    kind: str, approved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {} if approved else {"approved": "[]"}
    folder = write_site(tmp_path / "north", answer_step_seconds="0", **more)
    link = Link(folder, monkeypatch, WORK_SECONDS)
    asked = link.ask(kind, content_of(folder, kind), tmp_path)
    (reply,) = link.server.pushed
    assert link.server.runtimes == [0.0]
    assert reply.metadata.created_at == asked.metadata.created_at  # type: ignore[attr-defined]
    assert reply.metadata.ttl == asked.metadata.ttl  # type: ignore[attr-defined]


def test_an_error_on_the_way_says_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_site(tmp_path / "north", answer_step_seconds="0.4")
    link = Link(folder, monkeypatch, WORK_SECONDS)

    def break_disk(job: Job, is_withdrawn: Callable[[], bool]) -> Done:
        link.fetched = time.monotonic()
        time.sleep(WORK_SECONDS)
        raise OSError

    monkeypatch.setattr(link.daemon._worker, "reply", break_disk)
    asked = link.ask("train", content_of(folder, "train"), tmp_path)
    (reply,) = link.server.pushed
    assert link.server.runtimes == [0.0]
    assert reply.metadata.created_at == asked.metadata.created_at  # type: ignore[attr-defined]
    assert link.waited == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("kind", ["query.describe", "train", "evaluate", "query.other"])
def test_a_long_work_and_a_short_one_are_answered_after_the_same_time(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []
    for name, patients, work in (("small", 50, 0.02), ("large", 400, 0.4)):
        folder = write_site(tmp_path / name, patients, answer_step_seconds="1")
        content = content_of(folder, kind)
        app(Message(content, 7, "query.describe"), context_of(folder))  # its data are loaded
        link = Link(folder, monkeypatch, work)
        link.ask(kind, content, tmp_path)
        waited.append(link.waited)
    assert waited == pytest.approx([1.0, 1.0], abs=0.1)


def test_a_daemon_that_is_told_to_end_gives_the_answer_up_and_does_not_send_it_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wardround.client.daemon.worker_handle import AbandonedError

    folder = write_site(tmp_path / "north", answer_step_seconds="60")
    link = Link(folder, monkeypatch, 0.0)
    monkeypatch.setattr("wardround.client.daemon.shutdown.FINISH_SECONDS", 0.1)
    link.stop.ask()
    with pytest.raises(AbandonedError):
        link.ask("train", content_of(folder, "train"), tmp_path)
    assert link.server.pushed == []


@pytest.mark.parametrize(("step", "said"), [(0, 10), (1, 10), (10, 10), (15, 20), (60, 60)])
def test_seconds_that_a_hospital_says_are_never_finer_than_tens_or_the_step(
    step: float, said: float
) -> None:
    policy = Policy(answer_step_seconds=step)
    update = SiteUpdate("north", STUDY.digest, 1, 0, {}, 300, 9, 0.37, 0.5, run=new_run())
    for seconds in (0.37, 1.7, 9.99):
        assert reduce_update(replace(update, seconds=seconds), STUDY, policy).seconds == said
        evaluation = SiteEvaluation("north", STUDY.digest, 1, None, seconds)
        assert reduce_evaluation(evaluation, STUDY, policy).seconds == said
