"""The two listeners of a link process: hospitals' on the network, the server's own on loopback."""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from wardround.common.errors import RunError
from wardround.common.runtime.system.signals import stop_loop_when_told
from wardround.server.link.accepting import Acceptor
from wardround.server.link.connection_limits import Connection, ConnectionLimits
from wardround.server.link.site_connection import SiteConnection

_KEEP_ALIVE_SECONDS = 75
_STOP_SECONDS = 3
_BACKLOG = 512


class _Listener(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the process, which has two of these."""
        yield


class _PublicListener(_Listener):
    """uvicorn with an acceptor of ours, which knows who may hold how many connections."""

    def __init__(
        self,
        configuration: uvicorn.Config,
        context: ssl.SSLContext,
        limits: ConnectionLimits,
        silence_seconds: float,
    ) -> None:
        super().__init__(configuration)
        self._context, self._limits = context, limits
        self._silence_seconds = silence_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; uvicorn itself is given nothing to listen to."""
        await super().startup(sockets=[])
        for one in sockets or []:
            acceptor = Acceptor(one, self._context, self._limits, self._protocol)
            self.servers.append(cast("asyncio.Server", acceptor))  # which is closed in the end

    def _protocol(self, connection: Connection) -> SiteConnection:
        return SiteConnection(
            connection,
            self._limits.recognise,
            self._silence_seconds,
            config=self.config,
            server_state=self.server_state,
            app_state={},
        )


def open_socket(host: str, port: int) -> socket.socket:
    """Take an address, for a listener that starts later.

    Raises:
        RunError: It is in use, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With no protocol named, asyncio leaves out TCP_NODELAY, and each reply waits 40 ms.
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
        taken.listen(_BACKLOG)
    except OSError as error:
        taken.close()
        remedy = {
            errno.EADDRINUSE: "stop what listens there",
            errno.EACCES: "ports below 1024 need a right (AmbientCapabilities=CAP_NET_BIND_SERVICE "
            "in the unit file, and in CapabilityBoundingSet). Or have the router map that port to "
            '8443 and write public_names = ["HOST:443"] with port = 8443',
        }.get(error.errno or 0, "give an address of this machine")
        msg = f"cannot listen on {host}:{port} ({error.strerror}): {remedy}, or change server.toml."
        raise RunError(msg) from None
    return taken


def public_listener(
    app: ASGIApp, context: ssl.SSLContext, limits: ConnectionLimits, silence_seconds: float
) -> uvicorn.Server:
    """Return the listener for hospitals: TLS with certificates on both sides.

    Args:
        silence_seconds: How long the head of a request may take.
    """
    return _PublicListener(_configuration(app), context, limits, silence_seconds)


def inner_listener(app: ASGIApp) -> uvicorn.Server:
    """Return the listener for the server's own processes."""
    return _Listener(_configuration(app))


async def serve(
    listeners: dict[uvicorn.Server, socket.socket], beside: Callable[[], Awaitable[None]]
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        listeners: Each with the socket that it takes.
        beside: Runs as long as they do.
    """
    loop = asyncio.get_running_loop()

    def stop() -> None:
        for listener in listeners:
            listener.should_exit = True

    stop_loop_when_told(loop, stop)
    companion = asyncio.ensure_future(beside())
    try:
        await asyncio.gather(*(one.serve(sockets=[sock]) for one, sock in listeners.items()))
    finally:
        companion.cancel()


def _configuration(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        ws="none",
        lifespan="off",  # a gate has nothing to do at the beginning or the end
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
