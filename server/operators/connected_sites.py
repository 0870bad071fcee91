"""Which sites are connected: asked of the link, and remembered."""

import http.client
import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wardround.common.errors import WardroundError
from wardround.server.link.address import read_address
from wardround.server.scheduling.store import note_seen

logger = logging.getLogger(__name__)
LINK_SECRET_HEADER, LINK_SITES_PATH = "x-wardround-secret", "/wardround/sites"
_ONLINE = "online"  # as Flower calls it
_ANSWER_SECONDS = 2.0
EVERY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Presence:
    """Which sites are there, as the link sees it.

    Attributes:
        connected: Those whose last heartbeat is less than half a minute old, and that did not sign
            off. Rounds wait for these, and send them work.
        left: Those of them that have no connection open, and since when. An idle site asks for post
            without end, and one that trains sends a heartbeat every five seconds over a connection
            that stays open: so this is one that was killed, or whose network broke, or whose
            proxy has just closed a connection and gets the next one in a moment.
    """

    connected: frozenset[str]
    left: Mapping[str, float]


def connected_sites(folder: Path) -> frozenset[str] | None:
    """Return the sites that are connected to a server's link now; None if no link answers."""
    presence = look_who_is_there(folder)
    return None if presence is None else presence.connected


def look_who_is_there(folder: Path) -> Presence | None:
    """Ask the link which sites are there; None if no link answers."""
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
        left = {str(node["site"]): node.get("left") for node in nodes}
        return Presence(
            frozenset(left), {site: float(at) for site, at in left.items() if at is not None}
        )
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
