"""Work that tells events, turned into an iterator over them: it waits while an event is looked at.

The work runs in a thread and goes on only when the next event is asked for. When nobody asks any
more it is stopped where it stands, as by Ctrl-C, so that it leaves what Ctrl-C leaves.
"""

import ctypes
import threading
from collections.abc import Callable, Generator
from queue import Empty, SimpleQueue

from wardround.simulations.run_files.events import Event, Watch

_LOOK_SECONDS = 0.5  # a wait without an end cannot be interrupted on every system
_PATIENCE_SECONDS = 2.0  # for a round to end by itself before it is cut short


class StoppedByReaderError(KeyboardInterrupt):
    """Nobody asks for further rounds: the run ends as one that its user has stopped."""


def events_of(work: Callable[[Watch], object]) -> Generator[Event, None, None]:
    """Yield the events of a work, which stands still while each is looked at.

    Closing the iterator, or leaving a ``for`` loop over it, stops the work and waits for its end.

    Args:
        work: Is called with a watch, in a thread of its own.

    Raises:
        BaseException: What the work raised.
    """
    worker = _Worker(work)
    worker.start()
    try:
        while (event := worker.next_event()) is not None:
            yield event
            worker.go_on()
    finally:
        worker.stop()
    if worker.error is not None:
        raise worker.error


class _Worker(threading.Thread):
    def __init__(self, work: Callable[[Watch], object]) -> None:
        # A daemon: a process that ends while somebody looks at a round must not wait for the next.
        super().__init__(name="wardround-rounds", daemon=True)
        self._work = work
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._may_go_on = threading.Semaphore(0)
        self._is_unwanted = False
        self._was_told = False
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work(self._tell)
        except BaseException as error:
            self.error = error
        finally:
            self._events.put(None)

    def next_event(self) -> Event | None:
        """Wait for the next event; None where the work has ended."""
        while True:
            try:
                return self._events.get(timeout=_LOOK_SECONDS)
            except Empty:
                continue

    def go_on(self) -> None:
        """Let the work go on from the event that was taken."""
        self._may_go_on.release()

    def stop(self) -> None:
        """Stop the work, if it has not ended, and wait for it."""
        self._is_unwanted = True
        self._may_go_on.release()
        self.join(_PATIENCE_SECONDS)
        if self.is_alive() and not self._was_told and self.ident is not None:
            self._was_told = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self.ident), ctypes.py_object(StoppedByReaderError)
            )
        self.join()

    def _tell(self, event: Event) -> None:
        if self._was_told:  # what is left of a stopped run is written, and nobody listens
            return
        self._events.put(event)
        self._may_go_on.acquire()
        if self._is_unwanted and not self._was_told:
            self._was_told = True
            raise StoppedByReaderError
