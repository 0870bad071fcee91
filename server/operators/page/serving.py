"""How the operators' page is served by a server: on loopback by its link, elsewhere over TLS."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wardround.common.errors import InputError, RunError
from wardround.common.files.atomic import replace_file
from wardround.common.html.live.serving import live_page
from wardround.server.operators.operations import Operations
from wardround.server.operators.page.asked_server import OwnServer
from wardround.server.operators.page.lookout import Lookout
from wardround.server.operators.page.operators_page import operators_page
from wardround.server.operators.page.over_tls import page_over_tls
from wardround.server.settings import open_server

LINK_FILE = "page.link"
_LOOPBACK = ("127.0.0.1", "localhost")
_LARGEST_PORT = 65_535


@contextmanager
def pages_served(
    folder: Path, address: str, may_act: bool, tell: Callable[[str], None]
) -> Iterator[None]:
    """Serve a server's page from its own process while the block runs.

    Args:
        address: "host:port".
        may_act: Whether studies are submitted, stopped and resumed, and sites invited.
        tell: Is told where it is: on loopback the file that holds the link, which the folder's
            owner alone can read.

    Raises:
        InputError: The address or the server's certificate cannot be used.
        RunError: It cannot be listened to.
    """
    host, port = _place_of(address)
    settings = open_server(folder).settings
    server = OwnServer(Operations(folder))
    lookout = Lookout(server)
    try:
        page = operators_page(server, lookout, settings.name, may_act, folder)
        if host in _LOOPBACK:
            with live_page(page, port) as served, _link_kept(folder, served.link) as file:
                tell(f"The operators' page is on this machine; its link is in {file}")
                yield
        else:
            with page_over_tls(folder, settings, page, (host, port)):
                tell(
                    f"The operators' page is at https://{settings.host_names[0]}:{port}/ for "
                    "browsers with an operator's certificate"
                )
                yield
    finally:
        lookout.close()


def _place_of(address: str) -> tuple[str, int]:
    host, _, number = address.rpartition(":")
    if not host or not number.isdigit() or int(number) > _LARGEST_PORT:
        msg = f"{address!r} is no place for a page: give HOST:PORT, e.g. 127.0.0.1:8445."
        raise InputError(msg)
    return host, int(number)


@contextmanager
def _link_kept(folder: Path, link: str) -> Iterator[Path]:
    file = folder / LINK_FILE
    try:
        replace_file(file, f"{link}\n".encode())
    except OSError as error:
        msg = f"cannot write {file} ({error.strerror}): make room on the server."
        raise RunError(msg) from None
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
