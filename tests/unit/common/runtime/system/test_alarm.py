"""A computation that looks at no clock is interrupted all the same."""

import signal
import threading
import time

import pytest

from wardround.common.runtime.system.alarm import AlarmError, interrupted_after


def test_what_takes_too_long_is_interrupted_and_what_does_not_is_not() -> None:
    started = time.monotonic()
    with pytest.raises(AlarmError), interrupted_after(0.05):
        time.sleep(5)
    assert time.monotonic() < started + 4
    with interrupted_after(0.05):
        pass
    time.sleep(0.1)


def test_another_alarm_is_not_forgotten() -> None:
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with interrupted_after(5):
            pass
        time.sleep(0.2)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert rung == [1]


def test_another_thread_has_no_limit() -> None:
    done = []

    def work() -> None:
        with interrupted_after(0.01):
            time.sleep(0.05)
            done.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1]
