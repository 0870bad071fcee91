"""A live page on this machine: a listener on loopback, in a thread of the process that has it."""

import errno
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from wardround.common.errors import InputError, RunError
from wardround.common.html.live.app import live_app
from wardround.common.html.live.feed import Feed
from wardround.common.html.live.page import LivePage
from wardround.common.runtime.system.sockets import take_again

_SECRET_BYTES = 16
_START_SECONDS = 10.0
_END_SECONDS = 3.0
_MOST_REQUESTS = 200
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Served:
    """A page that is served.

    Attributes:
        link: What to open in a browser on this machine; whoever knows it may read the page.
        port: Of loopback.
    """

    link: str
    port: int


@contextmanager
def live_page(page: LivePage, port: int = 0) -> Iterator[Served]:
    """Serve a page to this machine while the block runs.

    Args:
        port: Of loopback; 0 takes a free one.

    Raises:
        InputError: The port is taken, or not for this account.
        RunError: The listener did not start.
    """
    listener = _listen(port)
    secret, feed = secrets.token_urlsafe(_SECRET_BYTES), Feed(page)
    server = uvicorn.Server(
        uvicorn.Config(
            live_app(page, secret, feed=feed),
            access_log=False,  # paths hold the secret
            lifespan="off",
            limit_concurrency=_MOST_REQUESTS,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=1,
            timeout_keep_alive=5,
            ws="none",
        )
    )
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="live-page", daemon=True
    )
    thread.start()
    try:
        _wait_for(server, thread)
        number = listener.getsockname()[1]
        yield Served(f"http://{_HOST}:{number}/{secret}/", number)
        if page.ended():
            _wait_for_readers(feed)
    finally:
        server.should_exit = True
        thread.join(_END_SECONDS)
        listener.close()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        take_again(listener)
        listener.bind((_HOST, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            msg = f"port {port} of this machine is taken: choose another one, or 0 for any."
        else:
            msg = f"cannot listen on port {port} ({error.strerror}): choose one above 1023, or 0."
        raise InputError(msg) from None
    except OverflowError:
        listener.close()
        msg = f"{port} is no port: choose one from 1024 to 65535, or 0 for any."
        raise InputError(msg) from None
    return listener


def _wait_for(server: uvicorn.Server, thread: threading.Thread) -> None:
    until = time.monotonic() + _START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > until:
            msg = "the page could not be served on this machine: try it without."
            raise RunError(msg)
        time.sleep(0.01)


def _wait_for_readers(feed: Feed) -> None:
    """Let readers see the last state; each leaves when it was told that this is it."""
    until = time.monotonic() + _END_SECONDS
    while feed.readers and time.monotonic() < until:
        time.sleep(0.05)
