"""Taking connections: each has a place before TLS begins, and five seconds for the handshake.

asyncio's own server counts nobody before the handshake is over, waits a minute for it, and writes a
traceback for every connection that it has no descriptor for. So the accepting is done here; all
else is ``loop.connect_accepted_socket``, which asyncio has for this purpose.
"""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

from wardround.server.link.connection_limits import Connection, ConnectionLimits

logger = logging.getLogger(__name__)
HANDSHAKE_SECONDS = 5.0
_GOODBYE_SECONDS = 2.0  # for the end of TLS, after which a connection is cut
_NO_ANSWER_MILLISECONDS = 120_000  # what a peer leaves unacknowledged for so long ends it
_PAUSE_SECONDS = 0.2  # after the system refused a descriptor


class Acceptor:
    """Takes the connections of one listening socket until it is closed.

    It has ``close`` and ``wait_closed``, as asyncio's server, in whose place uvicorn has it.
    """

    def __init__(
        self,
        listening: socket.socket,
        context: ssl.SSLContext,
        limits: ConnectionLimits,
        make_protocol: Callable[[Connection], asyncio.Protocol],
    ) -> None:
        """Begin at once; to be called where a loop runs."""
        self._listening, self._context, self._limits = listening, context, limits
        self._make_protocol = make_protocol
        self._handshakes: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        listening.setblocking(False)
        self._accepting = self._loop.create_task(self._accept())

    def close(self) -> None:
        """Take no more connections; those whose handshake is over go on."""
        for task in (self._accepting, *self._handshakes):
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until nothing is under way."""
        await asyncio.gather(self._accepting, *self._handshakes, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            try:
                taken, address = await self._loop.sock_accept(self._listening)
            except ConnectionAbortedError:  # it has gone already
                continue
            except OSError as error:
                logger.warning("a connection cannot be taken: %s", error.strerror)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            self._begin(taken, str(address[0]))
            await asyncio.sleep(0)  # a flood of connections does not stop the others' work

    def _begin(self, taken: socket.socket, address: str) -> None:
        """Give a connection its place, and begin the handshake."""
        with contextlib.suppress(AttributeError, OSError):  # Linux has it
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _NO_ANSWER_MILLISECONDS)
        connection = Connection(address, lambda: task.cancel())
        task = self._loop.create_task(self._shake_hands(taken, connection))

        def conclude(done: "asyncio.Task[None]") -> None:
            self._handshakes.discard(done)
            if done.cancelled() or done.exception() is not None:
                taken.close()
                connection.leave()

        self._handshakes.add(task)
        task.add_done_callback(conclude)
        self._limits.enter(connection)

    async def _shake_hands(self, taken: socket.socket, connection: Connection) -> None:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            await self._wait_for_a_byte(taken)
            self._limits.hear(connection)
            await self._loop.connect_accepted_socket(
                lambda: self._make_protocol(connection),
                taken,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=_GOODBYE_SECONDS,
            )

    async def _wait_for_a_byte(self, taken: socket.socket) -> None:
        """Wait until something was sent: TLS takes 0.3 MB, which silence is not given."""
        is_there = asyncio.Event()
        self._loop.add_reader(taken, is_there.set)
        try:
            await is_there.wait()
        finally:
            self._loop.remove_reader(taken)
