"""Whether a request may pass: its connection's certificate is a site's, valid and not revoked.

TLS has checked by then that the client holds the key of a certificate that the consortium's CA
issued. What TLS cannot know is checked here, for every request: that it is a site's certificate and
not an invitation or a server's, that it has not expired since the connection began, and that the
database holds it and it was not revoked. So a revocation holds from the next request on.
"""

import logging
import sqlite3
import threading
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from wardround.common.errors import WardroundError
from wardround.common.security.tls_key_pair import read_certificate
from wardround.server.database import connect
from wardround.server.identity.membership import SCHEMA, is_current
from wardround.server.identity.pki import (
    CA_CERTIFICATE,
    CA_FOLDER,
    INVITATION,
    SITE,
    Identity,
    identify,
)

logger = logging.getLogger(__name__)
_REMEMBERED = 4096  # certificates whose signature need not be checked again


class CertificateGate:
    """The gate of a server folder; several threads may use it.

    Raises:
        InputError: The CA's certificate cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = read_certificate(folder / CA_FOLDER / CA_CERTIFICATE)
        self._identify = lru_cache(maxsize=_REMEMBERED)(self._identify_anew)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def check(self, peer_der: bytes) -> str | None:
        """Return the site whose certificate this is; None if nothing may pass.

        Where the database cannot be asked nothing passes.

        Args:
            peer_der: What TLS shows of the client, in DER.
        """
        peer = self._valid(peer_der, SITE)
        if peer is None:
            return None
        try:
            with self._lock:
                return peer.name if self._is_current(peer) else None
        except (sqlite3.Error, WardroundError) as error:
            logger.error("certificates cannot be checked, so nobody passes: %s", error)
            return None

    def check_invitation(self, peer_der: bytes) -> Identity | None:
        """Return the invitation whose certificate this is; whether it was used is not asked."""
        return self._valid(peer_der, INVITATION)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _valid(self, peer_der: bytes, unit: str) -> Identity | None:
        peer = self._identify(peer_der)
        if peer is None or peer.unit != unit or not peer.is_valid(datetime.now(UTC)):
            return None
        return peer

    def _is_current(self, peer: Identity) -> bool:
        if self._connection is None:
            self._connection = connect(self._folder, SCHEMA)
        try:
            return is_current(self._connection, peer.name, peer.serial)
        except sqlite3.Error:
            self._connection.close()
            self._connection = None
            raise

    def _identify_anew(self, peer_der: bytes) -> Identity | None:
        return identify(peer_der, self._ca)
