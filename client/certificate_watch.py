"""Looking after a site's certificate while its daemon runs."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from wardround.client.site_keys import load_site_tls
from wardround.common.errors import WardroundError

logger = logging.getLogger(__name__)
_CERTIFICATE_SECONDS = 60.0


class CertificateWatch:
    """Has a site's certificate renewed in time, and sees when it was."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = load_site_tls(folder).cert_path
        self._seen = self._path.stat().st_mtime_ns
        self._next = time.monotonic() + _CERTIFICATE_SECONDS

    def has_changed(self, trouble: Callable[[str], None]) -> bool:
        """Whether there is a new certificate; one that is due is asked for now and then."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _CERTIFICATE_SECONDS
            self._renew(trouble)
        try:
            changed = self._path.stat().st_mtime_ns
        except OSError:
            return False
        was, self._seen = self._seen, changed
        return changed != was

    def _renew(self, trouble: Callable[[str], None]) -> None:
        from wardround.client.enrolment import renew_if_due

        try:
            renew_if_due(self._folder)
        except WardroundError as error:
            logger.warning("the certificate was not renewed: %s", error)
            trouble("renewal")
