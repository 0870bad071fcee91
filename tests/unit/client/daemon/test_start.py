"""What a daemon deletes when it starts, and now and then: answers that nobody asked for."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from wardround.client.daemon.daemon import SiteDaemon
from wardround.client.daemon.job_files import JobFiles
from wardround.client.daemon.shutdown import StopRequest
from wardround.client.daemon.status import StatusBoard, fresh_status
from wardround.client.data.source_files import mark_of, write_mark
from wardround.client.privacy.ledger.outbox import Outbox, ReplyKey, StoredReply
from wardround.client.site.folder import open_site


def tidied(folder: Path) -> None:
    daemon = SiteDaemon(
        open_site(folder),
        SimpleNamespace(address="server:1"),  # type: ignore[arg-type]
        SimpleNamespace(),  # type: ignore[arg-type]
        StatusBoard(fresh_status("north", "server:1", "1", 1)),
        StopRequest(),
    )
    daemon._tidy()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("wardround.client.daemon.daemon.CertificateWatch", lambda *_: None)
    folder = tmp_path / "north"
    folder.mkdir()
    (folder / "site.toml").write_text('name = "north"\n')
    (folder / "manifest.csv").write_text("patient,image\np1,1.png\n")
    (folder / "policy.toml").write_text("kept_answer_days = 2\n")
    return folder


@pytest.mark.parametrize(("days", "is_kept"), [(1, True), (3, False)])
@pytest.mark.parametrize("policy", ["kept_answer_days = 2\n", None])
def test_answers_are_kept_for_as_long_as_the_policy_says(
    site: Path, days: int, is_kept: bool, policy: str | None
) -> None:
    if policy is None:  # without one they are kept as by default
        (site / "policy.toml").unlink()
        days *= 15
    Outbox(site).keep(ReplyKey("study", "run", 1, 0), StoredReply(1, b"answer"))
    files = JobFiles(site / "state")
    files.reply.write_bytes(b"x")
    files.store_reply("key", "0" * 32, 1)
    old = time.time() - days * 24 * 3600
    for path in (*(site / "outbox").iterdir(), files.reply):
        os.utime(path, (old, old))
    tidied(site)
    assert bool(list((site / "outbox").iterdir())) == is_kept
    assert files.has_reply("key") == is_kept


def test_prepared_images_of_another_manifest_are_removed(site: Path) -> None:
    own, older, unmarked = (site / "state" / "prepared" / name for name in ("a", "b", "c"))
    for folder in (own, older, unmarked):
        folder.mkdir(parents=True)
        (folder / "x.image.npy").touch()
    write_mark(own, mark_of(open_site(site)))
    write_mark(older, b"another")
    tidied(site)
    assert list((site / "state" / "prepared").iterdir()) == [own]
