"""The operators' page over the network: TLS, and for who shows a certificate of an operator.

Which certificates are an operator's is asked at every request, and again while events flow, so that
one which was taken away reads no more. The listener is that of the sites, with its limits: whoever
shows no such certificate is refused before anything that he sends is read.
"""

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wardround.common.errors import RunError, WardroundError
from wardround.common.html.live.app import live_app
from wardround.common.html.live.page import LivePage
from wardround.server.identity.operator_access import OperatorGate
from wardround.server.identity.peer_certificate import make_server_context, peer_der
from wardround.server.identity.pki import Identity
from wardround.server.identity.server_certificate import load_server_tls
from wardround.server.link.connection_limits import ConnectionLimits
from wardround.server.link.listeners import open_socket, public_listener
from wardround.server.settings import ServerFile

logger = logging.getLogger(__name__)
_PLACES, _OF_ONE = 256, 80  # connections in all, and of one operator: one a reader and some more
_SILENCE_SECONDS = 20.0
_START_SECONDS, _END_SECONDS, _LOOK_SECONDS = 10.0, 5.0, 5.0
_RECHECK_SECONDS = 2.0


class OperatorJudge:
    """Whose a connection is: an operator's, or nobody's."""

    def __init__(self, gate: OperatorGate) -> None:
        self._gate = gate

    def check(self, peer_der: bytes) -> str | None:
        """Return the operator whose certificate this is."""
        return self._gate.name_of_der(peer_der)

    def check_invitation(self, peer_der: bytes) -> Identity | None:
        """Return None: nobody comes here by invitation."""
        return None


def operators_app(page: LivePage, gate: OperatorGate, names: tuple[str, ...]) -> ASGIApp:
    """Return the application for those whose certificate is an operator's.

    Args:
        names: Under which it is reached.
    """

    def identify(scope: Scope) -> str | None:
        shown = peer_der(scope)
        return None if shown is None else gate.name_of_der(shown)

    return _Rechecked(live_app(page, "", names, identify), identify)


class _Rechecked:
    """Ends what flows to an operator whose certificate was taken away meanwhile."""

    def __init__(self, inner: ASGIApp, identify: Callable[[Scope], str | None]) -> None:
        self._inner, self._identify = inner, identify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an ASGI request."""
        checked_at, is_ended = time.monotonic(), False

        async def sending(message: Message) -> None:
            nonlocal checked_at, is_ended
            if is_ended:
                return
            if time.monotonic() - checked_at >= _RECHECK_SECONDS:
                checked_at = time.monotonic()
                if self._identify(scope) is None:
                    is_ended = True
                    if message["type"] == "http.response.body":
                        message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._inner(scope, receive, sending)


@contextmanager
def page_over_tls(
    folder: Path, settings: ServerFile, page: LivePage, place: tuple[str, int]
) -> Iterator[None]:
    """Serve a page to operators' browsers while the block runs.

    Args:
        place: Address and port to listen on.

    Raises:
        InputError: A certificate cannot be read.
        RunError: It cannot be listened to.
    """
    gate, tls = OperatorGate(folder), load_server_tls(folder)
    names = tuple({name.lower().strip("[]") for name in (*settings.host_names, place[0])})
    context = make_server_context(tls)
    limits = ConnectionLimits(OperatorJudge(gate), _PLACES, _OF_ONE)
    listener = public_listener(operators_app(page, gate, names), context, limits, _SILENCE_SECONDS)
    taken = open_socket(place[0].strip("[]"), place[1])

    async def serve() -> None:
        renewals = asyncio.ensure_future(_renew(folder, context, tls.expires))
        try:
            await listener.serve(sockets=[taken])
        finally:
            renewals.cancel()

    thread = threading.Thread(
        target=lambda: asyncio.run(serve()), name="operators-page", daemon=True
    )
    thread.start()
    try:
        until = time.monotonic() + _START_SECONDS
        while not listener.started:
            if not thread.is_alive() or time.monotonic() > until:
                msg = "the operators' page could not be served: start the server without it."
                raise RunError(msg)
            time.sleep(0.01)
        yield
    finally:
        listener.should_exit = True
        thread.join(_END_SECONDS)
        taken.close()


async def _renew(folder: Path, context: ssl.SSLContext, expires: object) -> None:
    """Take up a renewed certificate of the server; open connections stay."""
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            tls = load_server_tls(folder)
            if tls.expires != expires:
                context.load_cert_chain(tls.cert_path, tls.key_path)
                expires = tls.expires
        except (WardroundError, OSError, ssl.SSLError) as error:
            logger.warning("the server's certificate cannot be read: %s", error)
