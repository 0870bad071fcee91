"""The gateway's queue: each entry once, in turn, and none lost."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wardround.client.clinic.gateway.queue import (
    DONE,
    GIVEN_UP,
    MOST_STARTS,
    REFUSED,
    WAITING,
    Work,
    WorkQueue,
)
from wardround.common.errors import RunError

MODEL = "ab" * 32
PLACE = ("1.2.3", "1.2.3.4", MODEL)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[WorkQueue]:
    made = WorkQueue(tmp_path / "gateway" / "queue.sqlite")
    yield made
    made.close()


def _next(queue: WorkQueue) -> Work:
    work = queue.next(MODEL)
    assert work is not None
    return work


def test_an_entry_is_added_once_and_stays_what_it_became(queue: WorkQueue) -> None:
    assert queue.add(PLACE, "objects") == WAITING
    assert queue.add(PLACE, "objects") == WAITING
    queue.end(_next(queue), DONE)
    assert queue.add(PLACE, "objects") == DONE
    assert queue.next(MODEL) is None
    assert queue.add(PLACE, "more objects") == WAITING  # it grew: another entry
    assert queue.counts().states == {WAITING: 1, DONE: 1, REFUSED: 0, GIVEN_UP: 0}


def test_another_process_finds_what_was_written(queue: WorkQueue, tmp_path: Path) -> None:
    queue.add(PLACE, "objects")
    queue.begin(_next(queue))
    second = WorkQueue(tmp_path / "gateway" / "queue.sqlite")  # as after kill -9
    assert _next(second).starts == 1
    second.close()
    assert (tmp_path / "gateway" / "queue.sqlite").stat().st_mode & 0o077 == 0


def test_an_entry_of_another_model_is_not_this_ones(queue: WorkQueue) -> None:
    queue.add(PLACE, "objects")
    assert queue.next("cd" * 32) is None
    assert queue.seconds_to_next("cd" * 32) is None


def test_what_fails_waits_longer_each_time_and_is_given_up(queue: WorkQueue) -> None:
    queue.add(PLACE, "objects")
    waits = []
    for _ in range(3):
        work = Work(1, *PLACE[:2], "objects", MODEL, len(waits), 0)
        queue.fail(work, "a reason", most_errors=4, retry_seconds=10)
        assert queue.next(MODEL) is None
        waits.append(queue.seconds_to_next(MODEL) or 0)
    assert waits == pytest.approx([10, 20, 40], abs=1)
    queue.fail(Work(1, *PLACE[:2], "objects", MODEL, 3, 0), "a reason", 4, 10)
    counts = queue.counts()
    assert counts.states[GIVEN_UP] == 1
    assert counts.reasons == ((GIVEN_UP, "a reason", 1),)
    assert queue.try_again() == 1
    assert _next(queue).errors == 0


def test_an_archive_that_is_away_counts_for_no_error(queue: WorkQueue) -> None:
    queue.add(PLACE, "objects")
    queue.begin(_next(queue))
    queue.put_back(_next(queue), "")
    assert (_next(queue).errors, _next(queue).starts) == (0, 0)


def test_what_ends_the_process_comes_last_and_is_given_up_at_last(queue: WorkQueue) -> None:
    queue.add(PLACE, "objects")
    queue.add(("1.2.4", "1.2.4.4", MODEL), "objects")
    queue.begin(_next(queue))
    assert _next(queue).study == "1.2.4"
    queue.end(_next(queue), DONE)
    for _ in range(MOST_STARTS - 1):
        assert queue.begin(_next(queue))
    assert not queue.begin(_next(queue))
    assert queue.next(MODEL) is None
    ((state, reason, _),) = queue.counts().reasons
    assert state == GIVEN_UP
    assert f"{MOST_STARTS} times" in reason


def test_a_series_settles_once_it_has_stopped_growing(
    queue: WorkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    assert not queue.settled(PLACE, 3, 60)
    assert queue.is_unsettled(MODEL, 60)
    now += 50
    assert not queue.settled(PLACE, 4, 60)
    now += 50
    assert not queue.settled(PLACE, 4, 60)
    now += 20
    assert queue.settled(PLACE, 4, 60)
    queue.add(PLACE, "objects")
    assert not queue.settled(PLACE, 4, 60)
    assert not queue.is_unsettled(MODEL, 60)
    assert queue.settled(PLACE, 5, 0)


def test_a_clock_that_was_set_back_settles_nothing_for_ever(
    queue: WorkQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    queue.settled(PLACE, 3, 60)
    now -= 1e6
    assert queue.settled(PLACE, 3, 60)


def test_counts_hold_nothing_of_a_patient(queue: WorkQueue) -> None:
    queue.add(PLACE, "objects")
    queue.note("trouble", "none")
    assert "1.2.3" not in repr(queue.counts())


def test_a_damaged_or_later_queue_is_said(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(RunError, match="cannot be used"):
        WorkQueue(path)
    path.unlink()
    with sqlite3.connect(path) as link:
        link.execute("PRAGMA user_version = 9")
    link.close()
    with pytest.raises(RunError, match="a later version"):
        WorkQueue(path)
