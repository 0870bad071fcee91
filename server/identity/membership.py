"""Who belongs to the consortium: sites, their node keys and certificates, and who no longer does.

What is not in the table is not a member: a certificate that the CA signed and that this table does
not hold, because the folder was restored from an old backup, say, opens nothing.
"""

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from wardround.common.errors import InputError
from wardround.server.database import transaction
from wardround.server.identity.pki import serial_text

MOST_CERTIFICATES = 16  # of one site, valid at a time
SCHEMA = """
CREATE TABLE IF NOT EXISTS invitations (
    serial TEXT PRIMARY KEY, site TEXT NOT NULL, issued REAL NOT NULL, expires REAL NOT NULL,
    used REAL, cancelled REAL) STRICT;
CREATE TABLE IF NOT EXISTS members (
    site TEXT PRIMARY KEY, node_key TEXT NOT NULL UNIQUE, joined REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS certificates (
    serial TEXT PRIMARY KEY, site TEXT NOT NULL, pem TEXT NOT NULL, invitation TEXT,
    issued REAL NOT NULL, expires REAL NOT NULL, revoked REAL) STRICT;
CREATE INDEX IF NOT EXISTS certificates_of_site ON certificates (site);
"""


@dataclass(frozen=True, slots=True)
class Member:
    """A site that has joined.

    Attributes:
        node_key: The public key by which Flower's SuperLink knows it, in PEM.
        expires: When its last certificate that is not revoked does; None if it has none.
    """

    site: str
    node_key: str
    joined: datetime
    expires: datetime | None

    def is_active(self, now: datetime) -> bool:
        """Whether it has a certificate with which it may connect."""
        return self.expires is not None and now <= self.expires


def members(folder: Path) -> tuple[Member, ...]:
    """Return all sites that ever joined, by name.

    Raises:
        RunError: The database cannot be used.
    """
    with transaction(folder, SCHEMA) as connection:
        return tuple(_members(connection))


def revoke(folder: Path, site: str) -> int:
    """Take every certificate and open invitation from a site; return how many there were.

    It holds for the next request of a running server.

    Raises:
        InputError: No site of that name was ever invited.
        RunError: The database cannot be used.
    """
    with transaction(folder, SCHEMA) as connection:
        names = _known_names(connection)
        if site not in names:
            known = ", ".join(names) or "none yet"
            msg = f"no site {site!r} was invited to this server. Known: {known}."
            raise InputError(msg)
        now = time.time()
        taken = connection.execute(
            "UPDATE certificates SET revoked = ? WHERE site = ? AND revoked IS NULL", (now, site)
        ).rowcount
        return (
            taken
            + connection.execute(
                "UPDATE invitations SET cancelled = ? "
                "WHERE site = ? AND used IS NULL AND cancelled IS NULL",
                (now, site),
            ).rowcount
        )


def add_certificate(
    connection: sqlite3.Connection, site: str, certificate: x509.Certificate, invitation: str | None
) -> None:
    """Note a certificate that was issued to a site."""
    connection.execute(
        "INSERT INTO certificates VALUES (?, ?, ?, ?, ?, ?, NULL)",
        (
            serial_text(certificate),
            site,
            certificate.public_bytes(Encoding.PEM).decode(),
            invitation,
            time.time(),
            certificate.not_valid_after_utc.timestamp(),
        ),
    )


def put_member(connection: sqlite3.Connection, site: str, node_key: str) -> bool:
    """Note a site that joins; False if another site has its node key."""
    holder = connection.execute(
        "SELECT site FROM members WHERE node_key = ?", (node_key,)
    ).fetchone()
    if holder is not None and holder[0] != site:
        return False
    connection.execute(
        "INSERT INTO members VALUES (?, ?, ?) ON CONFLICT (site) DO UPDATE "
        "SET node_key = excluded.node_key, joined = excluded.joined",
        (site, node_key, time.time()),
    )
    return True


def valid_certificates(connection: sqlite3.Connection, site: str) -> int:
    """Return how many certificates a site has that are neither revoked nor expired."""
    (count,) = connection.execute(
        "SELECT count(*) FROM certificates WHERE site = ? AND revoked IS NULL AND expires > ?",
        (site, time.time()),
    ).fetchone()
    return int(count)


def is_current(connection: sqlite3.Connection, site: str, serial: str) -> bool:
    """Whether a certificate was issued to a site and not taken from it."""
    row = connection.execute(
        "SELECT 1 FROM certificates WHERE serial = ? AND site = ? AND revoked IS NULL",
        (serial, site),
    ).fetchone()
    return row is not None


def _members(connection: sqlite3.Connection) -> Iterator[Member]:
    rows = connection.execute(
        "SELECT site, node_key, joined, (SELECT max(expires) FROM certificates "
        "WHERE certificates.site = members.site AND revoked IS NULL) FROM members ORDER BY site"
    )
    for site, node_key, joined, expires in rows:
        until = None if expires is None else datetime.fromtimestamp(expires, UTC)
        yield Member(site, node_key, datetime.fromtimestamp(joined, UTC), until)


def _known_names(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT DISTINCT site FROM invitations ORDER BY site")
    return [str(name) for (name,) in rows]
