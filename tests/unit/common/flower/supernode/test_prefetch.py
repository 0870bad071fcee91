"""Calls that are under way at a time: how many, in which order, and their end."""

import threading
import time

import pytest

from wardround.common.flower.messages.prefetch import several
from wardround.common.flower.supernode.transfers import LostError


def test_a_few_calls_are_under_way_at_a_time_and_the_results_keep_their_order() -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def ask(item: int) -> int:
        nonlocal under_way, most
        with lock:
            under_way, most = under_way + 1, max(most, under_way + 1)
        time.sleep(0.01 * (item % 3))
        with lock:
            under_way -= 1
        return item

    assert list(several(ask, range(20), 3)) == list(range(20))
    assert most == 3


def test_what_is_asked_for_ahead_is_bounded_and_ends_with_the_first_that_fails() -> None:
    asked: list[int] = []

    def ask(item: int) -> int:
        asked.append(item)
        if item == 4:
            raise LostError
        return item

    coming = several(ask, range(100), 2)
    assert next(coming) == 0
    time.sleep(0.05)
    assert asked == [0, 1, 2]
    with pytest.raises(LostError):
        list(coming)
    assert max(asked) <= 6
