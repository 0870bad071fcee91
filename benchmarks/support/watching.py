"""Looking at something again and again, in a thread, while a benchmark goes on."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar


class Watch(Protocol):
    """What is looked with."""

    @property
    def every_seconds(self) -> float:
        """How long to wait between two looks."""

    def look(self) -> None:
        """Look once, and keep what was seen."""


_Watch = TypeVar("_Watch", bound=Watch)


@contextmanager
def watching(watch: _Watch) -> Iterator[_Watch]:
    """Look until the context ends."""
    done = threading.Event()

    def look_on() -> None:
        while not done.wait(watch.every_seconds):
            watch.look()

    thread = threading.Thread(target=look_on, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()
