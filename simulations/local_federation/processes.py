"""A server and its sites as processes of this machine: real enrolment, real TLS, loopback only."""

import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from wardround.client.site.enrolment import join
from wardround.common.errors import RunError
from wardround.common.flower.environment import without_proxies
from wardround.common.runtime.system.processes import Child, last_words
from wardround.server.identity.invitations import invite
from wardround.server.operators.client import server_at
from wardround.server.service.installation import init_server
from wardround.server.settings import open_server

SERVER_FOLDER, LOG_FOLDER = "server", "logs"
_MODULE = "wardround.simulations.local_federation.child"
_START_SECONDS = 300.0  # a machine that is busy takes its time to import Flower
_LOOK_SECONDS = 0.2
# A site finishes its step first; the server commits what it has.
_SITE_ENDS_SECONDS, _SERVER_ENDS_SECONDS = 25.0, 20.0


class LocalFederation:
    """One server and its sites; leaving the context ends every process that was started.

    Each process ends with this one, even if this one is killed.

    Args:
        folder: Gets ``server/`` and ``logs/``.
        environment: Of the processes, beside this one's.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.server, self._logs = folder / SERVER_FOLDER, folder / LOG_FOLDER
        self._environment = {**without_proxies(os.environ), **(environment or {})}
        self._children: dict[str, Child] = {}

    def __enter__(self) -> "LocalFederation":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def make_server(self) -> None:
        """Make the server folder, its certificates and its address on loopback.

        Raises:
            InputError: It cannot be written.
        """
        init_server(self.server, "a try on one machine", ["localhost"], "127.0.0.1", free_port())

    def start_server(self) -> None:
        """Start the server and wait until sites can reach it.

        Raises:
            RunError: It ends at once, or does not answer in time.
        """
        self._start(SERVER_FOLDER, "server", "start", str(self.server))
        until = time.monotonic() + _START_SECONDS
        while not self._is_up():
            self.require_alive()
            if time.monotonic() > until:
                msg = f"the server does not answer after {_START_SECONDS:g} s: see {self._logs}."
                raise RunError(msg)
            time.sleep(_LOOK_SECONDS)

    def join(self, site_folder: Path) -> None:
        """Invite a site, and have it join with the token.

        Raises:
            InputError: The folder cannot join.
            RunError: The server refuses.
        """
        token = invite(self.server, site_folder.name)
        with _no_proxies():
            join(token, site_folder)

    def start_site(self, site_folder: Path, address: str = "") -> None:
        """Start a site's daemon.

        Args:
            address: "host:port" to dial instead of the server's own.
        """
        options = ("--server", address) if address else ()
        self._start(site_folder.name, "site", "start", str(site_folder), *options)

    def child(self, name: str) -> Child:
        """Return the process of the server, ``server``, or of a site."""
        return self._children[name]

    def log_path(self, name: str) -> Path:
        """Return what a process writes to."""
        return self._logs / f"{name}.log"

    @property
    def address(self) -> str:
        """Where sites reach the server."""
        return open_server(self.server).settings.address

    def require_alive(self) -> None:
        """Make sure that all processes that were started are still there.

        Raises:
            RunError: One has ended.
        """
        for name, child in self._children.items():
            if child.exit_code is not None:
                log = self.log_path(name)
                msg = (
                    f"the process of {name} ended ({child.exit_code}): {last_words(log)} See {log}."
                )
                raise RunError(msg)

    def stop(self) -> None:
        """End every process: gently, or at once if interrupted meanwhile."""
        children = [(name, child) for name, child in self._children.items()]
        sites = [child for name, child in children if name != SERVER_FOLDER]
        server = [child for name, child in children if name == SERVER_FOLDER]
        try:
            for child in sites:
                child.ask_to_end()
            for child in sites:
                child.end(_SITE_ENDS_SECONDS)
            for child in server:
                child.end(_SERVER_ENDS_SECONDS)
        finally:  # of a process that has ended this is nothing
            for child in (*sites, *server):
                child.end(0.0)

    def _start(self, name: str, *words: str) -> None:
        command = [sys.executable, "-m", _MODULE, *words]
        self._children[name] = Child(command, self._environment, self.log_path(name))

    def _is_up(self) -> bool:
        try:
            with server_at(str(self.server)) as line:
                return line.server().link_is_up
        except RunError:
            return False


def free_port() -> int:
    """Return a port of loopback that nothing listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def _no_proxies() -> Iterator[None]:
    """Dial this machine directly, whatever the environment says."""
    before = dict(os.environ)
    kept = without_proxies(before)
    for name in before.keys() - kept.keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)
