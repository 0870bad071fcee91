"""A server's words for its messages reach neither a screen nor a log as they are."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array
from tests.support.models_as_messages import make_message, message_file_of

from wardround.client.daemon.daemon import SiteDaemon
from wardround.client.daemon.jobs import Done, Job
from wardround.client.daemon.shutdown import StopRequest
from wardround.client.daemon.status import StatusBoard, fresh_status
from wardround.client.site.folder import open_site

FORGERY = "round 3\x1b[2J\n2026-01-01 INFO all is well"


class _Transfers:
    """Notes what is done with a message."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def fetch(self, *_: object) -> None:
        self.done.append("fetch")

    def confirm(self, *_: object) -> None:
        self.done.append("confirm")

    def push(self, *_: object) -> None:
        self.done.append("push")


@pytest.mark.parametrize("place", ["message_type", "group_id"])
def test_a_message_with_a_forged_word_is_refused_and_the_word_is_shown_escaped(
    tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wardround.client.daemon.daemon.CertificateWatch", lambda *_: None)
    folder = tmp_path / "north"
    folder.mkdir()
    (folder / "site.toml").write_text('name = "north"\n')
    (folder / "policy.toml").write_text("privacy_required = false\n")
    envelope, _ = message_file_of(make_message(Array(np.arange(3))), tmp_path)
    setattr(envelope.message.metadata, place, FORGERY)
    jobs: list[Job] = []

    def reply(job: Job, is_withdrawn: Callable[[], bool]) -> Done:
        jobs.append(job)
        answer = daemon._files.place_for(envelope.kind)
        answer.parent.mkdir(parents=True, exist_ok=True)
        answer.write_bytes(b"a refusal")
        return Done("input", is_kept=False)

    board = StatusBoard(fresh_status("north", "server:1", "1", 1))
    stop = StopRequest()
    daemon = SiteDaemon(
        open_site(folder),
        SimpleNamespace(address="server:1"),  # type: ignore[arg-type]
        SimpleNamespace(reply=reply),  # type: ignore[arg-type]
        board,
        stop,
    )
    transfers = _Transfers()
    daemon._node = SimpleNamespace(  # type: ignore[assignment]
        transfers=transfers,
        study_of=lambda run: "",
        working_for=lambda run: nullcontext(lambda: False),
    )
    with caplog.at_level(logging.INFO):
        daemon._take(envelope)
    assert [job.refuse for job in jobs] == ["words"]
    assert transfers.done == ["confirm", "push"]  # nothing of its model was fetched
    last = board.to_json()["last"]
    assert isinstance(last, dict)
    assert all(str(value).isprintable() for value in last.values())
    assert all(record.getMessage().isprintable() for record in caplog.records)
