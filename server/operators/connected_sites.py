"""Which sites are connected: asked of the link, and remembered."""

import http.client
import json
import logging
import threading
from pathlib import Path

from wardround.common.errors import WardroundError
from wardround.server.link.address import read_address
from wardround.server.scheduling.store import note_seen

logger = logging.getLogger(__name__)
LINK_SECRET_HEADER, LINK_SITES_PATH = "x-wardround-secret", "/wardround/sites"
_ONLINE = "online"  # as Flower calls it
_ANSWER_SECONDS = 2.0
EVERY_SECONDS = 10.0


def connected_sites(folder: Path) -> frozenset[str] | None:
    """Return the sites that are connected to a server's link now; None if no link answers."""
    address = read_address(folder)
    if address is None:
        return None
    link = http.client.HTTPConnection("127.0.0.1", address.port, timeout=_ANSWER_SECONDS)
    try:
        link.request("GET", LINK_SITES_PATH, headers={LINK_SECRET_HEADER: address.secret})
        reply = link.getresponse()
        content = json.loads(reply.read())
        if reply.status != http.client.OK:
            return None
        nodes = [node for node in content["sites"] if node["status"] == _ONLINE]
        return frozenset(str(node["site"]) for node in nodes)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
    finally:
        link.close()


class PresenceMonitor:
    """Notes every ten seconds which sites are connected, in a thread of its own."""

    def __init__(self, folder: Path, every_seconds: float = EVERY_SECONDS) -> None:
        """Begin to look."""
        self._folder, self._every = folder, every_seconds
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._look, name="lookout", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._closing.wait(self._every):
            sites = connected_sites(self._folder)
            if not sites:
                continue
            try:
                note_seen(self._folder, sorted(sites))
            except WardroundError as error:
                logger.warning("cannot note which sites are connected: %s", error)
