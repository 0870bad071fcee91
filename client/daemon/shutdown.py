"""How a site's daemon is told to end, and that it does so in time."""

import logging
import os
import threading
import time
from dataclasses import dataclass, field

from wardround.common.runtime.system.signals import obeyed_once

logger = logging.getLogger(__name__)
FINISH_SECONDS = 20.0  # for the work in hand, once told to stop
LEAVE_SECONDS = 10.0  # for all else


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Whether the daemon is to end, and until when the work in hand may go on."""

    event: threading.Event = field(default_factory=threading.Event)
    times: list[float] = field(default_factory=list)

    def ask(self) -> None:
        """Ask the daemon to end; the first time counts."""
        self.times.append(time.monotonic())
        self.event.set()

    def is_over(self) -> bool:
        """Whether the work in hand is to be given up."""
        return self.event.is_set() and time.monotonic() - self.times[0] > FINISH_SECONDS


def obey_signals(stop: StopRequest) -> None:
    """End when signalled, or when the terminal closes: gently at first, at once the second time.

    What a signal interrupts may hold any lock, so it does no more than to wake a thread.
    """
    woken, wake = os.pipe()
    obeyed_once(lambda: os.write(wake, b"x"))

    def wait_for_signal() -> None:
        os.read(woken, 1)
        stop.ask()

    threading.Thread(target=wait_for_signal, daemon=True).start()
    threading.Thread(target=_end_in_time, args=(stop,), daemon=True).start()


def _end_in_time(stop: StopRequest) -> None:
    """End the process if it does not end by itself; nothing is lost that the server cannot ask."""
    stop.event.wait()
    logger.info("stopping")
    time.sleep(FINISH_SECONDS + LEAVE_SECONDS)
    os._exit(0)
