"""The outbox: asked again, a site sends the same bytes and pays nothing."""

import os
import random
import time
from pathlib import Path

import pytest

from wardround.client.privacy.ledger.budget import Caps
from wardround.client.privacy.ledger.outbox import Outbox, ReplyKey, StoredReply
from wardround.common.errors import RunError

STUDY, RUN = "a" * 64, "run-1"
KEY = ReplyKey(STUDY, RUN, 3, 0)
ANSWER = StoredReply(7, b"packed\nanswer\x00")
CAPS = Caps(100.0, 1e-5, 100.0)


@pytest.fixture
def box(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path)


def files(site: Path) -> list[Path]:
    return sorted((site / "outbox").iterdir())


def test_what_was_kept_is_found_byte_for_byte_by_its_key_alone(box: Outbox) -> None:
    assert box.find(KEY) is None
    box.keep(KEY, ANSWER)
    assert box.find(KEY) == ANSWER
    for other in (
        ReplyKey("b" * 64, RUN, 3, 0),
        ReplyKey(STUDY, "run-2", 3, 0),
        ReplyKey(STUDY, RUN, 2, 0),
        ReplyKey(STUDY, RUN, 3, 1),
    ):
        assert box.find(other) is None


def test_a_damaged_file_is_no_answer(box: Outbox, tmp_path: Path) -> None:
    box.keep(KEY, ANSWER)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    generator = random.Random(0)
    for place in range(0, len(whole), 3):
        flipped = bytes([whole[place] ^ generator.randrange(1, 256)])
        path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
        found = box.find(KEY)
        # A changed number of the reservation reads well; the ledger then does not know it.
        assert found is None or (found.content == ANSWER.content and found.reservation != 7)
        path.write_bytes(whole[:place])
        assert box.find(KEY) is None


def test_an_answer_under_another_orders_name_is_no_answer(box: Outbox, tmp_path: Path) -> None:
    box.keep(KEY, ANSWER)
    (path,) = files(tmp_path)
    path.rename(path.with_name(path.name.replace("-00003-", "-00004-")))
    assert box.find(ReplyKey(STUDY, RUN, 4, 0)) is None


def test_a_later_round_drops_the_answers_of_its_run_before_it(box: Outbox) -> None:
    keys = [ReplyKey(STUDY, RUN, number, attempt) for number in (1, 2, 3) for attempt in (0, 1)]
    foreign = ReplyKey(STUDY, "run-2", 1, 0)
    for key in (*keys, foreign):
        box.keep(key, ANSWER)
    box.drop_before(STUDY, RUN, 3)
    assert [key for key in keys if box.find(key)] == keys[4:]
    assert box.find(foreign) == ANSWER


def test_what_nobody_asked_for_in_thirty_days_is_dropped(box: Outbox, tmp_path: Path) -> None:
    box.keep(ReplyKey(STUDY, "abandoned", 1, 0), ANSWER)
    (path,) = files(tmp_path)
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(b"half")
    old = time.time() - 31 * 24 * 3600
    for name in (path, unfinished):
        os.utime(name, (old, old))
    box.keep(KEY, ANSWER)
    box.drop_old(32)
    assert unfinished.exists()
    box.drop_old(30)
    assert len(files(tmp_path)) == 1
    assert box.find(KEY) == ANSWER


def test_what_the_server_has_counted_is_dropped(box: Outbox) -> None:
    keys = [ReplyKey(STUDY, RUN, number, 0) for number in (1, 2, 3)]
    for key in keys:
        box.keep(key, ANSWER)
    for counted in (-1, 0):
        box.drop_counted(STUDY, RUN, counted)
        box.drop_counted(STUDY, "run-2", 3)
    assert [key for key in keys if box.find(key)] == keys
    box.drop_counted(STUDY, RUN, 2)
    assert [key for key in keys if box.find(key)] == keys[2:]


def test_what_a_killed_process_was_writing_is_removed(box: Outbox, tmp_path: Path) -> None:
    box.keep(KEY, ANSWER)
    (path,) = files(tmp_path)
    path.with_name(f".{path.name}.7-7.part").write_bytes(b"half")
    box.drop_before(STUDY, RUN, 1)
    assert files(tmp_path) == [path]


def test_only_the_owner_reads_it_and_no_name_of_a_server_is_a_path(
    box: Outbox, tmp_path: Path
) -> None:
    box.keep(ReplyKey("../../etc", "../x", 1, 0), ANSWER)
    (path,) = files(tmp_path)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    assert not (tmp_path / "x").exists()


def test_an_answer_that_cannot_be_kept_does_not_leave(
    box: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match="No space left"):
            box.keep(KEY, ANSWER)
    assert box.find(KEY) is None
    assert files(tmp_path) == []


@pytest.mark.parametrize("durable", [True, False])
def test_an_answer_is_on_the_disk_before_it_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    seen: list[list[str]] = []
    real = os.fsync

    def watched(descriptor: int) -> None:
        seen.append([path.suffix for path in files(tmp_path)])
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    Outbox(tmp_path, durable).keep(KEY, ANSWER)
    assert seen == ([[".part"], [".answer"], [".answer"]] if durable else [])
