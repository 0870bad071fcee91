"""The public listener over real TLS: what honest callers get, and when a connection is ended."""

import asyncio
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from tests.support.hostile.attackers import Caller, is_open, read_all, request
from tests.support.stage import wait_until

from wardround.common.security.tls_key_pair import private_pem
from wardround.server.identity.peer_certificate import make_server_context
from wardround.server.identity.pki import SITE, Identity, open_authority
from wardround.server.identity.server_certificate import load_server_tls
from wardround.server.link import accepting, site_connection
from wardround.server.link.connection_limits import ConnectionLimits
from wardround.server.link.listeners import open_socket, public_listener
from wardround.server.service.installation import init_server

SILENCE_SECONDS = 0.5


@dataclass
class Judge:
    """Knows one site, as long as it is welcome."""

    is_welcome: bool = True

    def check(self, peer_der: bytes) -> str | None:
        return "north" if self.is_welcome else None

    def check_invitation(self, peer_der: bytes) -> Identity | None:
        return None


@dataclass
class Stage:
    judge: Judge
    limits: ConnectionLimits
    caller: Caller
    stop: Callable[[], None]


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """Say how long a body is, or answer without reading it."""
    if scope["path"] == "/early":
        await PlainTextResponse("early")(scope, receive, send)
        return
    body = await Request(scope, receive).body()
    await PlainTextResponse(f"{len(body)} bytes")(scope, receive, send)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(site_connection, "_LINGER_SECONDS", SILENCE_SECONDS)
    monkeypatch.setattr(accepting, "HANDSHAKE_SECONDS", SILENCE_SECONDS)
    folder = tmp_path / "server"
    init_server(folder, "lab", ["127.0.0.1"], "127.0.0.1", 1)
    key, authority = ec.generate_private_key(ec.SECP256R1()), open_authority(folder)
    certificate = authority.issue(SITE, "north", key.public_key(), timedelta(days=1))
    both = tmp_path / "north.pem"
    both.write_bytes(private_pem(key) + certificate.public_bytes(Encoding.PEM))
    taken, limits = open_socket("127.0.0.1", 0), ConnectionLimits(judge := Judge(), 32, 4)
    context = make_server_context(load_server_tls(folder))
    listener = public_listener(_app, context, limits, SILENCE_SECONDS)
    thread = threading.Thread(target=lambda: asyncio.run(listener.serve(sockets=[taken])))

    def stop() -> None:
        listener.should_exit = True
        thread.join(10.0)
        assert not thread.is_alive()

    thread.start()
    yield Stage(judge, limits, Caller(taken.getsockname()[1], both), stop)
    stop()


def _reply(line: ssl.SSLSocket) -> bytes:
    received = b""
    while b"bytes" not in received and b"early" not in received:
        received += line.recv(65536) or pytest.fail("closed")
    return received


def _is_empty(limits: ConnectionLimits) -> bool:
    return not any(map(len, (limits.silent, limits.strangers, limits.invited, limits.sites)))


def test_one_connection_carries_many_requests_with_pauses(stage: Stage) -> None:
    with stage.caller.shake_hands() as line:
        for length in (0, 3, 10**6):
            line.sendall(request(f"POST / HTTP/1.1\ncontent-length: {length}") + bytes(length))
            assert b"%d bytes" % length in _reply(line)
            time.sleep(1.5 * SILENCE_SECONDS)  # it is kept alive for longer than that
        line.sendall(request("GET / HTTP/1.1") + request("GET / HTTP/1.1\nconnection: close"))
        assert read_all(line).count(b"0 bytes") == 2
    wait_until(lambda: _is_empty(stage.limits))


def test_a_body_that_nobody_wants_has_a_moment_to_end(stage: Stage) -> None:
    head = request("POST /early HTTP/1.1\ncontent-length: 1000")
    with stage.caller.shake_hands() as soon, stage.caller.shake_hands() as never:
        for line in (soon, never):
            line.sendall(head + bytes(500))
            assert b"early" in _reply(line)
        soon.sendall(bytes(500) + request("GET / HTTP/1.1"))
        assert b"0 bytes" in _reply(soon)
        wait_until(lambda: not is_open(never), 10.0)
        assert is_open(soon)


def test_silence_at_each_stage_ends_a_connection(stage: Stage) -> None:
    beginnings = (b"", b"\r\n", b"GET / HT", b"GET / HTTP/1.1\r\nhost:")
    lines = [stage.caller.shake_hands() for _ in beginnings]
    for line, beginning in zip(lines, beginnings, strict=True):
        line.sendall(beginning)
    silent = stage.caller.connect()
    wait_until(lambda: not any(map(is_open, (*lines, silent))), 10.0)
    wait_until(lambda: _is_empty(stage.limits))


def test_with_one_connection_more_the_oldest_is_ended(stage: Stage) -> None:
    lines = [stage.caller.shake_hands() for _ in range(5)]
    wait_until(lambda: not is_open(lines[0]), 10.0)
    assert len(stage.limits.sites) <= 4


def test_whose_certificate_opens_nothing_is_told_so_before_any_request(stage: Stage) -> None:
    stage.judge.is_welcome = False
    told = read_all(stage.caller.shake_hands())
    assert told.startswith(b"HTTP/1.1 403")
    assert told.endswith(b'{"refused":"not-a-site"}')
    assert b"HTTP/1.1 403" in stage.caller.ask("GET / HTTP/1.1")
    wait_until(lambda: len(stage.limits.strangers) == 0)


def test_a_listener_stops_while_somebody_is_connected(stage: Stage) -> None:
    with stage.caller.connect(), stage.caller.shake_hands():
        stage.stop()
