"""A connection of the public listener: judged when it is made, and dropped when it stands still."""

import asyncio
from collections.abc import Callable
from typing import Any

import h11

from wardround.common.security.enrolment import Reason, Refused
from wardround.server.identity.peer_certificate import PeerCertificateProtocol, peer_der
from wardround.server.link.connection_limits import Connection

_LINGER_SECONDS = 5.0  # for the rest of a body that nobody wants, before the connection is cut
_BODY = Refused(refused=Reason.NOT_A_SITE).model_dump_json().encode()
_REFUSAL = (
    b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


class SiteConnection(PeerCertificateProtocol):
    """HTTP with somebody whose certificate was recognised.

    Whose was not is told so and gets no further: nothing that it sends is read. It is told because
    a site whose certificate was revoked, or that was restored from a backup, is to know.
    """

    def __init__(
        self,
        connection: Connection,
        recognise: Callable[[Connection, bytes], bool],
        silence_seconds: float,
        **uvicorn_arguments: Any,
    ) -> None:
        """Prepare for a connection whose handshake has not begun.

        Args:
            silence_seconds: How long it may take from the first byte of a request, or from the
                handshake, to the end of the request's head.
            uvicorn_arguments: What uvicorn gives its protocols.
        """
        super().__init__(**uvicorn_arguments)
        self._connection, self._recognise = connection, recognise
        self._silence_seconds = silence_seconds
        self._is_refused = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Judge the certificate; TLS is agreed by now."""
        super().connection_made(transport)
        self._connection.end = self.transport.abort
        peer = peer_der({"state": self.app_state})
        self._is_refused = peer is None or not self._recognise(self._connection, peer)
        if self._is_refused:
            self.transport.write(_REFUSAL)
            self.transport.close()
        else:
            self._set_deadline(self._silence_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn forgets it where the connection broke
        self._unset_deadline()
        self._connection.leave()

    def data_received(self, data: bytes) -> None:
        """Take what has come, and watch that the head of a request becomes complete."""
        if self._is_refused:
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._set_deadline(self._silence_seconds)
        elif not self._has_replied_early():
            self._unset_deadline()

    def on_response_complete(self) -> None:
        """Wait for the next request; a body that still comes has a moment to end."""
        is_early = self._has_replied_early()
        super().on_response_complete()
        if is_early:
            self._set_deadline(_LINGER_SECONDS)

    def _has_replied_early(self) -> bool:
        """Whether the request was answered before its body was there."""
        return self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE

    def _set_deadline(self, seconds: float) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _unset_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
