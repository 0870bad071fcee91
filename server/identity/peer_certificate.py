"""The client's certificate, from TLS to the application: uvicorn itself does not pass it on."""

import ssl
from asyncio import BaseTransport
from collections.abc import Mapping
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

from wardround.server.identity.server_certificate import ServerTls

_KEY = "wardround_peer_der"


class PeerCertificateProtocol(H11Protocol):
    """HTTP as uvicorn speaks it, with the connection's certificate in each request's state.

    Give it as ``uvicorn.Config(http=PeerCertificateProtocol)``.
    """

    def connection_made(self, transport: BaseTransport) -> None:
        """Note the certificate; TLS is agreed by now."""
        super().connection_made(cast("Any", transport))
        connection = transport.get_extra_info("ssl_object")
        content = connection.getpeercert(binary_form=True) if connection is not None else None
        self.app_state = {**self.app_state, _KEY: content}


def peer_der(scope: Mapping[str, Any]) -> bytes | None:
    """Return the client's certificate of an ASGI request, in DER; None if there is none."""
    content = scope.get("state", {}).get(_KEY)
    return content if isinstance(content, bytes) else None


def make_server_context(tls: ServerTls) -> ssl.SSLContext:
    """Return the server's TLS: version 1.2 or newer, and no client without the CA's certificate.

    Give it as ``uvicorn.Config(ssl_context_factory=lambda *_: context)``. After a renewal,
    ``context.load_cert_chain`` lets new connections see the new certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cafile=tls.ca_path)
    context.load_cert_chain(tls.cert_path, tls.key_path)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context
