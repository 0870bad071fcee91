"""The server as one process to be started and stopped: the supervisor, and the operators' API."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wardround.common.runtime.system.signals import told_to_stop
from wardround.server.identity.server_certificate import CertificateWatch, load_server_tls
from wardround.server.operators.connected_sites import connected_sites
from wardround.server.operators.grpc_server import operators_served
from wardround.server.scheduling.queue import StudyQueue
from wardround.server.service.supervisor import Supervisor, hold_server
from wardround.server.settings import open_server


def serve(folder: Path, operators: str = "", tell: Callable[[str], None] = lambda _: None) -> None:
    """Serve a server folder until SIGTERM or SIGINT, then end all that was started.

    Args:
        operators: "host:port" on which operators with certificates are answered too; "" for what
            ``server.toml`` says.
        tell: Is told once, when sites are answered: where they reach the server.

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
        with operators_served(server.folder, operators or server.settings.operators):
            opening = _Opening(server.folder, lambda: tell(server.settings.address))

            def on_tick() -> None:
                certificate.look()
                opening.look()

            Supervisor(server.folder, queue, on_tick).run(stopped)


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
