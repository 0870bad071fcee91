"""A small HTTP listener for Prometheus in a thread of its own, which no slow reader can hold up.

It answers ``GET /metrics`` and nothing else. There is no authentication: it is for this machine, or
for a network that only a monitor reaches. A reader has some seconds, a request some kilobytes, and
there are only so many readers at a time; whatever is more is cut off.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from wardround.common.monitoring.addresses import is_loopback, split_address

logger = logging.getLogger(__name__)
PATH = "/metrics"
Render = Callable[[str], tuple[str, bytes]]
_MOST_READERS = 8
_SECONDS = 10.0  # for a whole request and its answer
_LONGEST_REQUEST = 8192  # bytes
_WORDS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    500: "Internal Server Error",
}


class MetricsListener:
    """Answers with what a function measures; it is called in one thread, one call at a time."""

    def __init__(self, address: str, render: Render) -> None:
        """Listen from now on.

        Args:
            address: "host:port", as :data:`MetricsAddress` has it.
            render: From the header ``Accept`` to the type and the text of an answer.

        Raises:
            OSError, ValueError: The address cannot be listened on.
        """
        self._host, self._port = split_address(address)
        self._render, self._is_local = render, is_loopback(address)
        self._readers = 0
        self._measuring = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._loop = asyncio.new_event_loop()
        try:
            listening = asyncio.start_server(
                self._answer, self._host, self._port, limit=_LONGEST_REQUEST
            )
            self._server = self._loop.run_until_complete(listening)
        except BaseException:
            self._loop.close()
            raise
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""

        async def end() -> None:
            self._server.close()
            answering = asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}
            for one in answering:
                one.cancel()
            await asyncio.gather(*answering, return_exceptions=True)
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self._loop)
        self._thread.join(_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()
        self._measuring.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._readers += 1
        try:
            if self._readers <= _MOST_READERS:
                await asyncio.wait_for(self._converse(reader, writer), _SECONDS)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._readers -= 1
            writer.transport.abort()  # what was not read by now is not waited for

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        method, target, headers = _parsed(request)
        status, kind, body = (
            self._refusal(method, target, headers),
            "text/plain; charset=utf-8",
            b"",
        )
        if status == 200:
            status, kind, body = await self._measured(headers.get("accept", ""))
        body = body or f"{_WORDS[status]}\n".encode()
        head = (
            f"HTTP/1.1 {status} {_WORDS[status]}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\n"
            "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + (b"" if method == "HEAD" else body))
        await writer.drain()
        writer.write_eof()
        await reader.read()  # until the reader has closed, so that it gets the whole answer

    def _refusal(self, method: str, target: str, headers: dict[str, str]) -> int:
        """Return the status of an answer that needs no measurement, 200 where one is needed."""
        if not method:
            return 400
        if method not in ("GET", "HEAD"):
            return 405
        if target.partition("?")[0] != PATH:
            return 404
        # A page elsewhere could have a browser of this machine ask, under a name of its own.
        return 421 if self._is_local and not _is_local_name(headers.get("host", "")) else 200

    async def _measured(self, accept: str) -> tuple[int, str, bytes]:
        try:
            kind, body = await self._loop.run_in_executor(self._measuring, self._render, accept)
        except Exception as error:
            logger.warning("metrics cannot be measured: %s", type(error).__name__)
            return 500, "text/plain; charset=utf-8", b""
        return 200, kind, body


def _parsed(request: bytes) -> tuple[str, str, dict[str, str]]:
    """Return method, target and headers; an empty method where it is no request."""
    first, *rest = request.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return "", "", {}
    headers = (line.partition(":") for line in rest if line)
    return words[0], words[1], {name.strip().lower(): text.strip() for name, _, text in headers}


def _is_local_name(host: str) -> bool:
    has_port = ":" in host.rpartition("]")[2]
    with suppress(ValueError):
        return is_loopback(host if has_port else f"{host}:0")
    return False
