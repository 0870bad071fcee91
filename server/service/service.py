"""The server as one process to be started and stopped: the supervisor, and the operators' API."""

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from wardround.common.runtime.system.signals import told_to_stop
from wardround.server.identity.server_certificate import CertificateWatch, load_server_tls
from wardround.server.operators.connected_sites import connected_sites
from wardround.server.operators.grpc_server import operators_served
from wardround.server.scheduling.queue import StudyQueue
from wardround.server.service.supervisor import Supervisor, hold_server
from wardround.server.settings import ServerFolder, open_server


@dataclass(frozen=True, slots=True)
class PageTerms:
    """The operators' page of a server.

    Attributes:
        address: "host:port"; "" for what ``server.toml`` says.
        may_act: Whether it is for more than reading; also where ``server.toml`` says so.
        tell: Is told where it is, where there is one.
    """

    address: str = ""
    may_act: bool = False
    tell: Callable[[str], None] = lambda _: None


def serve(
    folder: Path,
    operators: str = "",
    tell: Callable[[str], None] = lambda _: None,
    page: PageTerms | None = None,
) -> None:
    """Serve a server folder until SIGTERM or SIGINT, then end all that was started.

    Args:
        operators: "host:port" on which operators with certificates are answered too; "" for what
            ``server.toml`` says.
        tell: Is told once, when sites are answered: where they reach the server.
        page: The operators' page, where ``server.toml`` does not say all of it.

    Raises:
        InputError: Folder, certificate or address cannot be used.
        RunError: Another server works there, the link cannot start, or the disk cannot be used.
    """
    server = open_server(folder)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    queue = StudyQueue(server.folder, server.settings.parallel_studies)
    with hold_server(server.folder), told_to_stop() as stopped:
        certificate = CertificateWatch(server.folder)
        certificate.look()  # it may have expired while the server did not run
        load_server_tls(server.folder)
        with ExitStack() as stack:
            operators = operators or server.settings.operators
            stack.enter_context(operators_served(server.folder, operators))
            stack.enter_context(_page_served(server, page or PageTerms()))
            opening = _Opening(server.folder, lambda: tell(server.settings.address))

            def on_tick() -> None:
                certificate.look()
                opening.look()

            supervisor = Supervisor(server.folder, queue, on_tick)
            with _monitored(server, supervisor):
                supervisor.run(stopped)


def _page_served(server: ServerFolder, page: PageTerms) -> AbstractContextManager[None]:
    address = page.address or server.settings.pages
    if not address:
        return nullcontext()
    # Only now: a server without a page does without the listener's packages.
    from wardround.server.operators.page.serving import pages_served

    may_act = page.may_act or server.settings.page_actions
    return pages_served(server.folder, address, may_act, page.tell)


@dataclass(slots=True)
class _Opening:
    """Tells once that sites are answered: the link needs some seconds, and may fail."""

    folder: Path
    tell: Callable[[], None]
    _told: bool = False

    def look(self) -> None:
        """Tell it if it is so now, and was not before."""
        if not self._told and connected_sites(self.folder) is not None:
            self._told = True
            self.tell()


@contextmanager
def _monitored(server: ServerFolder, supervisor: Supervisor) -> Iterator[None]:
    """Answer Prometheus meanwhile, where ``server.toml`` says so."""
    address = server.settings.metrics
    if not address:
        yield
        return
    from wardround.common.monitoring.prometheus import served
    from wardround.server.service.metrics import PREFIX, Histories, ServerMetrics

    histories = Histories(server.folder)
    metrics = ServerMetrics(server.folder, address, supervisor.processes, histories)
    listener = served(address, PREFIX, metrics.parts())
    try:
        yield
    finally:
        if listener is not None:
            listener.close()
