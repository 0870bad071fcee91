"""A consortium's enrolment server on the loopback, with real TLS; it writes down what it hears."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.types import ASGIApp, Receive, Scope, Send

from wardround.client.site.credentials import bare_context, signing_request
from wardround.client.site.enrolment import _present_invitation
from wardround.client.site.server_client import open_link
from wardround.common.security.enrolment import JOIN_PATH, JoinRequest, sign_as_node
from wardround.common.security.join_token import JoinToken
from wardround.common.security.tls_key_pair import public_pem
from wardround.server.identity.enrolment import enrolment_app
from wardround.server.identity.invitations import DEFAULT_LIFE, invite
from wardround.server.identity.peer_certificate import PeerCertificateProtocol, make_server_context
from wardround.server.identity.server_certificate import load_server_tls
from wardround.server.service.installation import init_server


class WithTransport(PeerCertificateProtocol):
    """Lets a test break a connection off."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


@dataclass
class Consortium:
    """A running server.

    Attributes:
        heard: Of each request that got past TLS: method and path, and all its bytes.
        lose: How many answers to lose by breaking the connection off, after the work is done.
        date: Of the Date header, where a test sets the server's clock.
    """

    folder: Path
    port: int
    app: ASGIApp
    heard: list[tuple[str, bytes]] = field(default_factory=list)
    lose: int = 0
    date: str = ""

    def invite(self, site: str, life: timedelta = DEFAULT_LIFE) -> JoinToken:
        return invite(self.folder, site, life)

    def context(self, token: JoinToken) -> ssl.SSLContext:
        """Return the TLS of who holds an invitation."""
        context = bare_context()
        context.load_verify_locations(cafile=self.folder / "ca" / "ca.crt")
        _present_invitation(context, token)
        return context

    def post(self, token: JoinToken, body: bytes, path: str = JOIN_PATH) -> httpx.Response:
        with open_link(token.address, self.context(token)) as client:
            return client.post(path, content=body)

    @staticmethod
    def join_body(name: str, node_key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
        """Return a request to join, as a site makes it, with new keys."""
        node = node_key or ec.generate_private_key(ec.SECP384R1())
        request = signing_request(ec.generate_private_key(ec.SECP256R1()), name)
        asked = JoinRequest(
            request=request,
            node_key=public_pem(node.public_key()).decode(),
            node_signature=sign_as_node(node, request),
        )
        return asked.model_dump_json().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = f"{scope['method']} {scope['path']}"
        headers = b"".join(key + b":" + value + b"\n" for key, value in scope["headers"])
        self.heard.append((request, headers))

        async def listening() -> Any:
            message = await receive()
            name, content = self.heard[-1]
            self.heard[-1] = (name, content + message.get("body", b""))
            return message

        async def losing(message: Any) -> None:
            if self.lose and scope["method"] == "POST":
                scope["state"]["transport"].abort()
                self.lose -= message["type"] == "http.response.body"
                return
            if message["type"] == "http.response.start" and self.date:
                message["headers"] = [*message["headers"], (b"date", self.date.encode())]
            await send(message)

        await self.app(scope, listening, losing)


def free_port() -> socket.socket:
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken


@pytest.fixture
def start_server() -> Iterator[Callable[..., Consortium]]:
    """Start servers; all are stopped at the end."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(folder: Path, names: tuple[str, ...] = ("127.0.0.1",), **more: Any) -> Consortium:
        taken = free_port()
        port = taken.getsockname()[1]
        if not (folder / "server.toml").exists():
            init_server(folder, "Lung-2026", names, "127.0.0.1", port)
        consortium = Consortium(folder, port, enrolment_app(folder))
        context = make_server_context(load_server_tls(folder))
        configuration = uvicorn.Config(
            consortium,
            http=WithTransport,
            ssl_context_factory=lambda *_: context,
            # As the product does: uvicorn's own set-up closes every handler that it finds, and
            # with absl's (of dp-accounting) the stream that pytest captures.
            log_config=None,
            log_level="critical",
            lifespan="off",
            ws="none",
            **more,
        )
        server = uvicorn.Server(configuration)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]}, daemon=True)
        thread.start()
        running.append((server, thread))
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        return consortium

    yield start
    for server, thread in running:
        server.should_exit = server.force_exit = True
        thread.join(10)


@pytest.fixture
def consortium(tmp_path: Path, start_server: Callable[..., Consortium]) -> Consortium:
    return start_server(tmp_path / "server")
