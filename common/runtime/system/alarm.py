"""A time limit for a computation that looks at no clock itself."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class AlarmError(Exception):
    """The time was over."""


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Interrupt what is done within, by the process's alarm clock, once the time is over.

    Only the main thread of a process can be interrupted: elsewhere there is no limit, nor on a
    system without such a clock.

    Raises:
        AlarmError: The time was over.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise AlarmError

    began, handler = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:  # somebody else's alarm goes on
            signal.setitimer(signal.ITIMER_REAL, max(left - time.monotonic() + began, 1e-3))
