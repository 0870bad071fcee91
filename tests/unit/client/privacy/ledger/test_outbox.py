"""The outbox: asked again, a site sends the same bytes and pays nothing."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from wardround.client.privacy.ledger import budget as ledger_budget
from wardround.client.privacy.ledger import outbox as outbox_module
from wardround.client.privacy.ledger.budget import Caps
from wardround.client.privacy.ledger.charges import Assignment, Charge
from wardround.client.privacy.ledger.entries import LedgerError
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.privacy.ledger.outbox import Outbox, ReplyKey, StoredReply
from wardround.client.privacy.ledger.reply_once import reply_once
from wardround.common.errors import RunError
from wardround.common.flower.messages.serialisation import from_bytes, to_bytes
from wardround.common.privacy.accounting import Spend

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


def test_a_damaged_file_is_no_reply(box: Outbox, tmp_path: Path) -> None:
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


def test_a_reply_under_another_instructions_name_is_no_reply(box: Outbox, tmp_path: Path) -> None:
    box.keep(KEY, ANSWER)
    (path,) = files(tmp_path)
    path.rename(path.with_name(path.name.replace("-00003-", "-00004-")))
    assert box.find(ReplyKey(STUDY, RUN, 4, 0)) is None


def test_a_later_round_drops_the_replies_of_its_run_before_it(box: Outbox) -> None:
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
    box.drop_before(STUDY, RUN, 1)
    assert len(files(tmp_path)) == 1
    assert box.find(KEY) == ANSWER


def test_only_the_owner_reads_it_and_no_name_of_a_server_is_a_path(
    box: Outbox, tmp_path: Path
) -> None:
    box.keep(ReplyKey("../../etc", "../x", 1, 0), ANSWER)
    (path,) = files(tmp_path)
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    assert not (tmp_path / "x").exists()


def test_a_reply_that_cannot_be_kept_does_not_leave(
    box: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(outbox_module.os, "fsync", full)
        with pytest.raises(RunError, match="No space left"):
            box.keep(KEY, ANSWER)
    assert box.find(KEY) is None
    assert files(tmp_path) == []


@pytest.mark.parametrize("durable", [True, False])
def test_a_reply_is_on_the_disk_before_it_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    seen: list[list[str]] = []
    real = os.fsync

    def watched(descriptor: int) -> None:
        seen.append([path.suffix for path in files(tmp_path)])
        real(descriptor)

    monkeypatch.setattr(outbox_module.os, "fsync", watched)
    Outbox(tmp_path, durable).keep(KEY, ANSWER)
    assert seen == ([[".part"], [".answer"], [".answer"]] if durable else [])


# --- With the ledger -------------------------------------------------------------------------


class Work:
    """A training that answers something else each time."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self) -> bytes:
        self.done += 1
        return f"answer {self.done}".encode()


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrivacyLedger:
    monkeypatch.setattr(ledger_budget, "epsilon_of", lambda spends, delta: 1.0)
    opened = PrivacyLedger.open(tmp_path, durable=False)
    opened.admit(_charge(opened, 1).assignment, Spend(0.1, 1.0, 50), 1.0, CAPS)
    return opened


def _charge(ledger: PrivacyLedger, number: int, attempt: int = 0) -> Charge:
    assignment = Assignment(STUDY, RUN, ledger.snapshot(["a", "b"]))
    return Charge(assignment, number, attempt, Spend(0.1, 1.0, 10))


def test_asked_again_the_same_bytes_leave_without_training_or_spend(
    ledger: PrivacyLedger, box: Outbox
) -> None:
    work = Work()
    first = reply_once(ledger, box, _charge(ledger, 1), CAPS, work)
    counter = ledger.counter
    for _ in range(3):
        assert reply_once(ledger, box, _charge(ledger, 1), CAPS, work) == first
    assert work.done == 1
    assert ledger.counter == counter
    assert reply_once(ledger, box, _charge(ledger, 1, attempt=1), CAPS, work) != first
    assert work.done == 2


def test_a_later_instruction_commits_what_left_before_it(
    ledger: PrivacyLedger, box: Outbox
) -> None:
    work = Work()
    for number in (1, 2, 3):
        reply_once(ledger, box, _charge(ledger, number), CAPS, work)
    waiting = ledger.awaiting(_charge(ledger, 1).assignment)
    assert [reservation.charge.round for reservation in waiting] == [3]
    assert box.find(ReplyKey(STUDY, RUN, 2, 0)) is None


def _remove(path: Path) -> None:
    path.unlink()


def _flip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def _renumber(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"reservation": 2', b'"reservation": 3'))


@pytest.mark.parametrize("damage", [_remove, _flip, _renumber])
def test_a_lost_reply_is_reserved_anew(
    ledger: PrivacyLedger, box: Outbox, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    work = Work()
    reply_once(ledger, box, _charge(ledger, 1), CAPS, work)
    (path,) = files(tmp_path)
    damage(path)
    counter = ledger.counter
    assert reply_once(ledger, box, _charge(ledger, 1), CAPS, work) == b"answer 2"
    assert ledger.counter == counter + 2, "reserved and released"


def test_a_reply_that_another_ledger_paid_for_does_not_leave(
    ledger: PrivacyLedger, box: Outbox, tmp_path: Path
) -> None:
    work = Work()
    reply_once(ledger, box, _charge(ledger, 1), CAPS, work)
    ledger.close()
    (tmp_path / "ledger" / "ledger.jsonl").unlink()
    with PrivacyLedger.open(tmp_path, durable=False) as fresh:
        fresh.admit(_charge(fresh, 1).assignment, Spend(0.1, 1.0, 50), 1.0, CAPS)
        assert reply_once(fresh, box, _charge(fresh, 1), CAPS, work) == b"answer 2"


def test_a_kept_reply_that_was_exchanged_does_not_leave(ledger: PrivacyLedger, box: Outbox) -> None:
    reply_once(ledger, box, _charge(ledger, 1), CAPS, Work())
    box.keep(ReplyKey(STUDY, RUN, 1, 0), StoredReply(2, b"exchanged"))
    with pytest.raises(LedgerError, match="reserve again"):
        reply_once(ledger, box, _charge(ledger, 1), CAPS, Work())


def test_a_failed_training_leaves_its_charge_and_nothing_else(
    ledger: PrivacyLedger, box: Outbox
) -> None:
    def fail() -> bytes:
        msg = "no memory"
        raise RunError(msg)

    counter = ledger.counter
    with pytest.raises(RunError, match="no memory"):
        reply_once(ledger, box, _charge(ledger, 1), CAPS, fail)
    assert ledger.counter == counter + 1
    assert ledger.awaiting(_charge(ledger, 1).assignment) == []
    assert box.find(ReplyKey(STUDY, RUN, 1, 0)) is None


def test_a_packed_message_is_kept_and_read_back_the_same(
    ledger: PrivacyLedger, box: Outbox
) -> None:
    content = RecordDict(
        {
            "header": ConfigRecord({"round": 1, "site": "north"}),
            "model": ArrayRecord({"w": Array(np.arange(6, dtype=np.float32).reshape(2, 3))}),
        }
    )
    sent = reply_once(ledger, box, _charge(ledger, 1), CAPS, lambda: to_bytes(content))
    again = reply_once(ledger, box, _charge(ledger, 1), CAPS, Work())
    assert sent == again
    assert from_bytes(again) == content
