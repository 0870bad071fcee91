"""The server's own certificate: made, renewed without a new CA, and loaded for TLS."""

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from wardround.common.errors import InputError, WardroundError
from wardround.common.files.atomic import replace_file
from wardround.common.security.tls_key_pair import (
    finish_pair,
    is_renewal_due,
    mend_pair,
    next_key_path,
    private_pem,
    renewing_alone,
)
from wardround.server.identity.pki import CA_CERTIFICATE, CA_FOLDER, SERVER, open_authority
from wardround.server.settings import open_server

SERVER_KEY, SERVER_CERTIFICATE = "server.key", "server.crt"
logger = logging.getLogger(__name__)
# A failed renewal is tried again within the hour, not each minute.
_LOOK_SECONDS, _AGAIN_SECONDS = 60.0, 3600.0


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The files of a server's TLS: PEM, the key readable by its owner alone.

    Attributes:
        ca_path: The CA that clients' certificates must come from.
    """

    ca_path: Path
    cert_path: Path
    key_path: Path
    expires: datetime


def load_server_tls(folder: Path) -> ServerTls:
    """Return the TLS files of a server folder, once they are whole and belong together.

    Raises:
        InputError: One is missing, damaged, readable by others, or the certificate has expired.
    """
    tls_folder = folder / CA_FOLDER
    key, path = tls_folder / SERVER_KEY, tls_folder / SERVER_CERTIFICATE
    certificate = mend_pair(key, path)
    expires = certificate.not_valid_after_utc
    if expires < datetime.now(UTC):
        msg = (
            f"the server's certificate expired on {expires:%Y-%m-%d}: "
            f"run 'wardround server renew {folder}'."
        )
        raise InputError(msg)
    return ServerTls(tls_folder / CA_CERTIFICATE, path, key, expires)


def renew_server_certificate(folder: Path) -> x509.Certificate:
    """Make a new key and certificate for the server; sites notice nothing.

    The names are those of ``server.toml``. A server that runs shows the new certificate to whoever
    connects from a few seconds later on; connections that are open stay open.

    Raises:
        InputError: The folder is no server folder, its CA cannot be used, or another renewal runs.
        OSError: The files cannot be written; the old ones stay.
    """
    settings = open_server(folder).settings
    key = ec.generate_private_key(ec.SECP256R1())
    life, names = timedelta(days=settings.server_certificate_days), settings.host_names
    certificate = open_authority(folder).issue(SERVER, names[0][:64], key.public_key(), life, names)
    path, content = folder / CA_FOLDER / SERVER_KEY, certificate.public_bytes(Encoding.PEM)
    with renewing_alone(folder / CA_FOLDER):
        replace_file(next_key_path(path), private_pem(key))
        finish_pair(path, folder / CA_FOLDER / SERVER_CERTIFICATE, content)
    return certificate


def renew_server_if_due(folder: Path) -> bool:
    """Renew the server's certificate if less than a third of its life is left; True if it was.

    Raises:
        InputError: As :func:`renew_server_certificate`.
        OSError: As :func:`renew_server_certificate`.
    """
    tls_folder = folder / CA_FOLDER
    certificate = mend_pair(tls_folder / SERVER_KEY, tls_folder / SERVER_CERTIFICATE)
    if not is_renewal_due(certificate, datetime.now(UTC)):
        return False
    renew_server_certificate(folder)
    return True


class CertificateWatch:
    """Has the certificate of a server that runs renewed in time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._next = time.monotonic()

    def look(self) -> None:
        """Renew what is due; it may be called as often as one likes, and a failure is logged."""
        if time.monotonic() < self._next:
            return
        try:
            self._next = time.monotonic() + _LOOK_SECONDS
            if renew_server_if_due(self._folder):
                logger.info("the server's certificate was renewed")
        except (WardroundError, OSError) as error:  # the old one still works
            self._next = time.monotonic() + _AGAIN_SECONDS
            logger.error("the server's certificate was not renewed: %s", error)
