"""Certificates of operators, who reach the server over the network: issued, checked, taken away.

As with sites, what is not in the table opens nothing, whatever the CA has signed.
"""

import re
import secrets
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    load_pem_private_key,
    pkcs12,
)

from wardround.common.errors import InputError, WardroundError
from wardround.common.files.atomic import READABLE, make_private_folder, write_new
from wardround.common.security.tls_key_pair import private_pem, read_certificate
from wardround.common.study.sections.fields import NAME_LETTERS
from wardround.server.database import connect, transaction
from wardround.server.identity.pki import (
    CA_CERTIFICATE,
    CA_FOLDER,
    OPERATOR,
    identify,
    open_authority,
    serial_text,
)

OPERATOR_KEY, OPERATOR_CERTIFICATE = "operator.key", "operator.crt"
OPERATOR_BUNDLE = "operator.p12"
_PASSPHRASE_BYTES = 12
_NAME = re.compile(rf"[{NAME_LETTERS}][{NAME_LETTERS}._-]{{0,63}}")
_MOST_BYTES = 64  # of a common name
SCHEMA = """
CREATE TABLE IF NOT EXISTS operators (
    serial TEXT PRIMARY KEY, name TEXT NOT NULL, issued REAL NOT NULL, expires REAL NOT NULL,
    revoked REAL) STRICT;
"""


def issue_operator(folder: Path, name: str, days: float, out: Path) -> x509.Certificate:
    """Make a key and a certificate for an operator, in a folder to be handed over.

    Args:
        folder: The server folder.
        out: A new folder; it then holds ``operator.key``, ``operator.crt`` and ``ca.crt``.

    Raises:
        InputError: ``out`` holds something, or the name or the CA cannot be used.
        OSError: ``out`` cannot be written.
        RunError: The database cannot be used.
    """
    if not _NAME.fullmatch(name) or len(name.encode()) > _MOST_BYTES:
        msg = f"{name!r} cannot be an operator's name: use up to 64 letters, digits and . _ -"
        raise InputError(msg)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        msg = f"{out} is there and holds something: give a folder that is new or empty."
        raise InputError(msg)
    authority, key = open_authority(folder), ec.generate_private_key(ec.SECP256R1())
    certificate = authority.issue(OPERATOR, name, key.public_key(), timedelta(days=days))
    make_private_folder(out)
    write_new(out / OPERATOR_KEY, private_pem(key))
    write_new(out / OPERATOR_CERTIFICATE, certificate.public_bytes(Encoding.PEM), READABLE)
    ca = authority.certificate.public_bytes(Encoding.PEM)
    write_new(out / CA_CERTIFICATE, ca, READABLE)
    expires = certificate.not_valid_after_utc.timestamp()
    with transaction(folder, SCHEMA) as connection:
        connection.execute(
            "INSERT INTO operators VALUES (?, ?, ?, ?, NULL)",
            (serial_text(certificate), name, time.time(), expires),
        )
    return certificate


def write_browser_bundle(folder: Path, name: str) -> str:
    """Write an operator's key and certificates as a file that browsers import.

    Args:
        folder: Of the operator, as :func:`issue_operator` made it; ``operator.p12`` is added.

    Returns:
        The passphrase that the browser asks for; it is kept nowhere.

    Raises:
        InputError: The folder does not hold what it should.
        OSError: The file cannot be written.
    """
    try:
        key = load_pem_private_key((folder / OPERATOR_KEY).read_bytes(), None)
    except (OSError, ValueError):
        msg = f"{folder} holds no operator's key: give the folder of an operator."
        raise InputError(msg) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        msg = f"{folder} holds another key than an operator's: give the folder of an operator."
        raise InputError(msg)
    certificate = read_certificate(folder / OPERATOR_CERTIFICATE)
    authority = read_certificate(folder / CA_CERTIFICATE)
    passphrase = secrets.token_urlsafe(_PASSPHRASE_BYTES)
    bundle = pkcs12.serialize_key_and_certificates(
        name.encode(), key, certificate, [authority], BestAvailableEncryption(passphrase.encode())
    )
    write_new(folder / OPERATOR_BUNDLE, bundle)
    return passphrase


def revoke_operator(folder: Path, name: str) -> int:
    """Take all certificates from an operator; return how many. It holds for the next call.

    Raises:
        InputError: There is no operator of that name.
        RunError: The database cannot be used.
    """
    with transaction(folder, SCHEMA) as connection:
        rows = connection.execute("SELECT DISTINCT name FROM operators ORDER BY name")
        names = [str(known) for (known,) in rows]
        if name not in names:
            msg = f"there is no operator {name!r}. Known: {', '.join(names) or 'none yet'}."
            raise InputError(msg)
        return connection.execute(
            "UPDATE operators SET revoked = ? WHERE name = ? AND revoked IS NULL",
            (time.time(), name),
        ).rowcount


class OperatorGate:
    """Whether a caller's certificate is that of an operator, valid and not taken away.

    Raises:
        InputError: The CA's certificate cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = read_certificate(folder / CA_FOLDER / CA_CERTIFICATE)

    def name_of(self, pem: bytes) -> str | None:
        """Return the operator whose certificate (PEM) this is, None if nothing may pass."""
        try:
            content = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        except ValueError:
            return None
        return self.name_of_der(content)

    def name_of_der(self, content: bytes) -> str | None:
        """Return the operator whose certificate (DER) this is, None if nothing may pass."""
        peer = identify(content, self._ca)
        if peer is None or peer.unit != OPERATOR or not peer.is_valid(datetime.now(UTC)):
            return None
        return peer.name if self._is_current(peer.serial) else None

    def _is_current(self, serial: str) -> bool:
        question = "SELECT 1 FROM operators WHERE serial = ? AND revoked IS NULL"
        try:
            with closing(connect(self._folder, SCHEMA)) as connection:
                return connection.execute(question, (serial,)).fetchone() is not None
        except (sqlite3.Error, WardroundError):
            return False
