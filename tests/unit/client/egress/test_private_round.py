"""One instruction, one reply, one charge; the guard looks once, at the bytes that leave."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from wardround.client.egress.private_round import reply_once
from wardround.client.privacy.ledger import budget as ledger_budget
from wardround.client.privacy.ledger.budget import Caps
from wardround.client.privacy.ledger.charges import Assignment, Charge
from wardround.client.privacy.ledger.entries import LedgerError
from wardround.client.privacy.ledger.ledger import PrivacyLedger
from wardround.client.privacy.ledger.outbox import Outbox, ReplyKey, StoredReply
from wardround.common.errors import GuardError, RunError
from wardround.common.flower.messages.content import from_bytes, to_bytes
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
    first = reply_once(ledger, box, _charge(ledger, 1), CAPS, work, bytes)
    counter = ledger.counter
    for _ in range(3):
        assert reply_once(ledger, box, _charge(ledger, 1), CAPS, work, bytes) == first
    assert work.done == 1
    assert ledger.counter == counter
    assert reply_once(ledger, box, _charge(ledger, 1, attempt=1), CAPS, work, bytes) != first
    assert work.done == 2


def test_a_later_order_commits_what_left_before_it(ledger: PrivacyLedger, box: Outbox) -> None:
    work = Work()
    for number in (1, 2, 3):
        reply_once(ledger, box, _charge(ledger, number), CAPS, work, bytes)
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
def test_a_lost_answer_is_reserved_anew(
    ledger: PrivacyLedger, box: Outbox, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    work = Work()
    reply_once(ledger, box, _charge(ledger, 1), CAPS, work, bytes)
    (path,) = files(tmp_path)
    damage(path)
    counter = ledger.counter
    assert reply_once(ledger, box, _charge(ledger, 1), CAPS, work, bytes) == b"answer 2"
    assert ledger.counter == counter + 2, "reserved and released"


def test_an_answer_that_another_ledger_paid_for_does_not_leave(
    ledger: PrivacyLedger, box: Outbox, tmp_path: Path
) -> None:
    work = Work()
    reply_once(ledger, box, _charge(ledger, 1), CAPS, work, bytes)
    ledger.close()
    (tmp_path / "ledger" / "ledger.jsonl").unlink()
    with PrivacyLedger.open(tmp_path, durable=False) as fresh:
        fresh.admit(_charge(fresh, 1).assignment, Spend(0.1, 1.0, 50), 1.0, CAPS)
        assert reply_once(fresh, box, _charge(fresh, 1), CAPS, work, bytes) == b"answer 2"


def test_a_kept_answer_that_was_exchanged_does_not_leave(
    ledger: PrivacyLedger, box: Outbox
) -> None:
    reply_once(ledger, box, _charge(ledger, 1), CAPS, Work(), bytes)
    box.keep(ReplyKey(STUDY, RUN, 1, 0), StoredReply(2, b"exchanged"))
    with pytest.raises(LedgerError, match="reserve again"):
        reply_once(ledger, box, _charge(ledger, 1), CAPS, Work(), bytes)


def test_a_failed_training_leaves_its_charge_and_nothing_else(
    ledger: PrivacyLedger, box: Outbox
) -> None:
    def fail() -> bytes:
        msg = "no memory"
        raise RunError(msg)

    counter = ledger.counter
    with pytest.raises(RunError, match="no memory"):
        reply_once(ledger, box, _charge(ledger, 1), CAPS, fail, bytes)
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
    sent = reply_once(ledger, box, _charge(ledger, 1), CAPS, lambda: to_bytes(content), bytes)
    again = reply_once(ledger, box, _charge(ledger, 1), CAPS, Work(), bytes)
    assert sent == again
    assert from_bytes(again) == content


class Guard:
    """A guard that notes what it looks at, and lets nothing through that it was told of."""

    def __init__(self, forbidden: bytes = b"") -> None:
        self.seen: list[bytes] = []
        self.forbidden = forbidden

    def __call__(self, reply: bytes) -> bytes:
        self.seen.append(reply)
        if reply == self.forbidden:
            msg = "not what the study implies"
            raise GuardError(msg)
        return reply


def test_the_guard_looks_once_at_a_new_reply_and_once_whenever_a_kept_one_is_sent(
    ledger: PrivacyLedger, box: Outbox
) -> None:
    guard = Guard()
    first = reply_once(ledger, box, _charge(ledger, 1), CAPS, Work(), guard)
    assert guard.seen == [first]
    assert reply_once(ledger, box, _charge(ledger, 1), CAPS, Work(), guard) == first
    assert guard.seen == [first, first]


def test_a_reply_that_the_guard_stops_is_neither_kept_nor_released(
    ledger: PrivacyLedger, box: Outbox
) -> None:
    counter = ledger.counter
    with pytest.raises(GuardError):
        reply_once(ledger, box, _charge(ledger, 1), CAPS, Work(), Guard(b"answer 1"))
    assert box.find(ReplyKey(STUDY, RUN, 1, 0)) is None
    assert ledger.counter == counter + 1, "reserved, and not released"


def test_a_kept_reply_that_the_guard_lets_through_no_more_stays(
    ledger: PrivacyLedger, box: Outbox
) -> None:
    reply_once(ledger, box, _charge(ledger, 1), CAPS, Work(), bytes)
    with pytest.raises(GuardError):
        reply_once(ledger, box, _charge(ledger, 1), CAPS, Work(), Guard(b"answer 1"))
