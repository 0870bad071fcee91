"""Waiting for post without asking for it again and again."""

import asyncio

HELD_HEADER = "x-wardround-held"  # of a question that may be held


class Wakeups:
    """A bell for each node and each run: threads ring, requests that are held listen."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listeners: dict[int, set[asyncio.Future[None]]] = {}

    def listen(self, key: int) -> "asyncio.Future[None]":
        """Return what is done at the bell's next ring; to be given back with :meth:`leave`."""
        self._loop = asyncio.get_running_loop()
        heard: asyncio.Future[None] = self._loop.create_future()
        self._listeners.setdefault(key, set()).add(heard)
        return heard

    def leave(self, key: int, heard: "asyncio.Future[None]") -> None:
        """Stop listening."""
        listeners = self._listeners.get(key, set())
        listeners.discard(heard)
        if not listeners:
            self._listeners.pop(key, None)
        heard.cancel()

    def notify(self, key: int) -> None:
        """Tell whoever listens; any thread may."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._notify, key)

    def _notify(self, key: int) -> None:
        for heard in self._listeners.get(key, ()):
            if not heard.done():
                heard.set_result(None)
