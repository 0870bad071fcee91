"""Looking after a site's certificate while its daemon runs."""

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

from wardround.client.site.credentials import load_site_tls
from wardround.common.errors import WardroundError

logger = logging.getLogger(__name__)
# A stop is seen within 2 s; whether renewal is due is asked once a minute.
_LOOK_SECONDS, _RENEWAL_SECONDS = 2.0, 60.0


class CertificateWatch:
    """Has a site's certificate renewed in time, whatever the daemon is at meanwhile.

    It works in a thread of its own: one training may take days, and so may waiting for a server.

    Args:
        folder: The site folder.
        renewed: Is called when there is a new certificate, whoever asked for it.
        trouble: Is told a word where it was not renewed.
        address: Of the server, "host:port", where the daemon does not go where ``site.toml`` says.
    """

    def __init__(
        self,
        folder: Path,
        renewed: Callable[[], None],
        trouble: Callable[[str], None],
        address: str = "",
    ) -> None:
        self._folder, self._address = folder, address
        self._renewed, self._trouble = renewed, trouble
        self._path = load_site_tls(folder).cert_path
        self._seen = self._path.stat().st_mtime_ns
        self._next = time.monotonic()

    def start(self, stop: Event) -> None:
        """Watch until told to stop, or until the process ends."""
        Thread(target=self._watch, args=(stop,), daemon=True).start()

    def look(self) -> None:
        """Ask for a new certificate if one is due, and tell of one that is there."""
        if time.monotonic() >= self._next:
            self._renew()
        try:
            changed = self._path.stat().st_mtime_ns
            if changed != self._seen:
                self._renewed()
                self._seen, self._next = changed, time.monotonic()
        except (WardroundError, OSError, ssl.SSLError) as error:  # half of it is there, say
            logger.warning("the new certificate cannot be used: %s", error)

    def _watch(self, stop: Event) -> None:
        while True:
            self.look()
            if stop.wait(_LOOK_SECONDS):
                return

    def _renew(self) -> None:
        # Late, since joining and renewing need more than a daemon does at its start.
        from wardround.client.site.enrolment import renew_if_due

        self._next = time.monotonic() + _RENEWAL_SECONDS
        try:
            renew_if_due(self._folder, self._address)
        except (WardroundError, OSError) as error:
            logger.warning("the certificate was not renewed: %s", error)
            self._trouble("renewal")
