"""What attackers of the public port do, with sockets of their own."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from wardround.common.security.join_token import JoinToken
from wardround.common.security.tls_key_pair import private_pem

_SECONDS = 15.0


@dataclass(frozen=True)
class Caller:
    """Somebody who calls a port of this machine.

    Attributes:
        certificate: With its key, in one file; None for a stranger.
        source: The address that he calls from.
    """

    port: int
    certificate: Path | None = None
    source: str = "127.0.0.1"

    def connect(self) -> socket.socket:
        """Return a connection on which nothing was said yet."""
        whence = (self.source, 0)
        return socket.create_connection(("127.0.0.1", self.port), _SECONDS, source_address=whence)

    def shake_hands(self) -> ssl.SSLSocket:
        """Return a connection over which TLS is agreed, as this side sees it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.certificate is not None:
            context.load_cert_chain(self.certificate)
        return context.wrap_socket(self.connect())

    def ask(self, head: str, body: bytes = b"") -> bytes:
        """Send one request and return all that comes back until the server closes."""
        with self.shake_hands() as line:
            line.sendall(request(head) + body)
            return read_all(line)

    def is_served(self) -> bool:
        """Whether the server answers this caller that it is well."""
        try:
            reply = self.ask("GET /health HTTP/1.1\nconnection: close")
        except OSError:
            return False
        return reply.startswith(b"HTTP/1.1 200")


def request(head: str) -> bytes:
    """Return the head of a request, given as its lines."""
    return f"{head}\nhost: x\n\n".replace("\n", "\r\n").encode()


def read_all(line: socket.socket) -> bytes:
    """Return what comes until the other side closes, or breaks off."""
    received = b""
    with contextlib.suppress(OSError):
        while piece := line.recv(65536):
            received += piece
    return received


def is_open(line: socket.socket) -> bool:
    """Whether the other side has not closed a connection; what it said is read and forgotten."""
    line.settimeout(0.0)
    try:
        return bool(line.recv(65536))
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False


def invitation_file(token: JoinToken, path: Path) -> Path:
    """Write the certificate and key of an invitation to one file."""
    path.write_bytes(private_pem(token.key) + token.certificate.public_bytes(Encoding.PEM))
    return path


class Crowd:
    """Keeps so many connections open; what the server closes is opened again."""

    def __init__(self, caller: Caller, count: int, with_tls: bool = False) -> None:
        self._open = caller.shake_hands if with_tls else caller.connect
        self._count = count
        self._lines: list[socket.socket] = []
        self._is_over = threading.Event()
        self.opened = 0

    @contextlib.contextmanager
    def at_work(self) -> Iterator["Crowd"]:
        """Give the crowd when it has opened its connections for the first time."""
        thread = threading.Thread(target=self._work, daemon=True)
        thread.start()
        try:
            until = time.monotonic() + 60.0
            while self.opened < self._count and time.monotonic() < until:
                time.sleep(0.05)
            yield self
        finally:
            self._is_over.set()
            thread.join()
            for line in self._lines:
                line.close()

    def _work(self) -> None:
        while not self._is_over.wait(0.5):
            closed = [line for line in self._lines if not is_open(line)]
            for line in closed:
                line.close()
            self._lines = [line for line in self._lines if line.fileno() >= 0]
            while len(self._lines) < self._count and not self._is_over.is_set():
                with contextlib.suppress(OSError):
                    self._lines.append(self._open())
                self.opened += 1
