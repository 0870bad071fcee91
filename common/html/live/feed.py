"""A page drawn once for all its readers: each is sent the regions that changed since it looked."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping

from wardround.common.html.live.page import LivePage

logger = logging.getLogger(__name__)
MOST_READERS = 64
_DRAWING_SHARE = 0.01  # of a core, at most: a page that is long to draw is drawn less often
_LONGEST_INTERVAL_SECONDS = 3.0  # a site that is gone shows within 5
_ALIVE_SECONDS = 15.0  # a comment is sent so often: proxies and browsers drop silent connections


class TooManyReadersError(Exception):
    """As many read already as may."""


class Feed:
    """What a page's regions are, and who is told; it lives in one event loop.

    The page is drawn in a thread, every ``interval_seconds`` or less often where drawing it would
    take more than a hundredth of a core, while there are readers.
    """

    def __init__(self, page: LivePage) -> None:
        self._page = page
        self._drawn: dict[str, str] = {}
        self._versions: dict[str, int] = {}
        self._version = 0
        self._is_stale = self._is_over = False
        self._changed = asyncio.Condition()
        self._readers = 0
        self._drawing: asyncio.Task[None] | None = None
        self._packed: dict[int, str] = {}
        self._drawing_seconds = 0.0

    @property
    def readers(self) -> int:
        """How many read now."""
        return self._readers

    async def regions(self) -> Mapping[str, str]:
        """Return all regions, drawn now if nobody has them drawn."""
        if self._drawing is None:
            await self._draw()
        return self._drawn

    async def messages(self) -> AsyncIterator[str]:
        """Yield server-sent events: first all regions, then those that change.

        Raises:
            TooManyReadersError: There is no place for another reader.
        """
        if self._readers >= MOST_READERS:
            raise TooManyReadersError
        self._readers += 1
        if self._drawing is None:
            self._drawing = asyncio.create_task(self._keep_drawing())
        try:
            async for message in self._since(0):
                yield message
        finally:
            self._readers -= 1

    async def _since(self, seen: int) -> AsyncIterator[str]:
        yield "retry: 2000\n\n"
        while True:
            if self._version == seen and not self._is_over:
                try:
                    async with asyncio.timeout(_ALIVE_SECONDS):
                        async with self._changed:
                            await self._changed.wait()
                except TimeoutError:
                    yield ": still here\n\n"
                    continue
            if self._version != seen:
                yield self._pack(seen)
                seen = self._version
            if self._is_over:
                yield "event: over\ndata: {}\n\n"
                return

    def _pack(self, seen: int) -> str:
        """Return the event of what is newer; readers who have seen the same are sent the same."""
        if seen not in self._packed:
            new = {name: html for name, html in self._drawn.items() if self._versions[name] > seen}
            said = json.dumps({"regions": new, "stale": self._is_stale})
            self._packed[seen] = f"id: {self._version}\ndata: {said}\n\n"
        return self._packed[seen]

    async def _keep_drawing(self) -> None:
        try:
            while self._readers and not self._is_over:
                over = self._page.ended()  # before: what is drawn now is the last state
                await self._draw()
                if over:
                    await self._end()
                    return
                await asyncio.sleep(self._pause())
        finally:
            self._drawing = None

    def _pause(self) -> float:
        """Return for how long nothing is drawn after the last time, in seconds."""
        cheap = min(self._drawing_seconds / _DRAWING_SHARE, _LONGEST_INTERVAL_SECONDS)
        return max(self._page.interval_seconds, cheap)

    async def _end(self) -> None:
        async with self._changed:
            self._is_over = True
            self._changed.notify_all()

    async def _draw(self) -> None:
        try:
            drawn, self._drawing_seconds = await asyncio.to_thread(_timed, self._page.draw)
        except Exception as error:
            # Its text may quote what a page must not show; the page keeps what it has.
            if not self._is_stale:
                logger.exception("a live page cannot be drawn: %s", type(error).__name__)
            await self._note({}, is_stale=True)
        else:
            await self._note(drawn, is_stale=False)

    async def _note(self, drawn: Mapping[str, str], is_stale: bool) -> None:
        new = {name: html for name, html in drawn.items() if self._drawn.get(name) != html}
        if not new and is_stale == self._is_stale:
            return
        async with self._changed:
            self._version += 1
            self._is_stale = is_stale
            self._drawn.update(new)
            self._versions.update(dict.fromkeys(new, self._version))
            self._packed.clear()
            self._changed.notify_all()


def _timed(draw: Callable[[], Mapping[str, str]]) -> tuple[Mapping[str, str], float]:
    began = time.thread_time()
    return draw(), time.thread_time() - began
