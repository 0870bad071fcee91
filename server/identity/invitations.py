"""Invitations: each names a site, opens enrolment once, and expires."""

import sqlite3
import time
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from wardround.common.errors import InputError
from wardround.common.runtime.system.names import same_somewhere
from wardround.common.security.enrolment import Reason
from wardround.common.security.join_token import JoinToken, check_site_name
from wardround.server.database import transaction
from wardround.server.identity.membership import (
    MOST_CERTIFICATES,
    SCHEMA,
    add_certificate,
    put_member,
    valid_certificates,
)
from wardround.server.identity.pki import INVITATION, SITE, fingerprint, open_authority, serial_text
from wardround.server.settings import open_server

DEFAULT_LIFE = timedelta(hours=72)


class RefusedError(Exception):
    """An enrolment request is refused, for a reason that may be told."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


def invite(folder: Path, site: str, life: timedelta = DEFAULT_LIFE, address: str = "") -> JoinToken:
    """Invite a site; an earlier invitation of it that is still open is withdrawn.

    Args:
        address: Where this site is to dial, one of the server's; the first of them if empty.

    Raises:
        InputError: The server has no such address, no site can have that name, another one has it
            in other capitals, this one has a valid certificate, or the folder is no server folder.
        RunError: The database cannot be used.
    """
    check_site_name(site)
    settings, authority = open_server(folder).settings, open_authority(folder)
    if address and address not in (*settings.addresses, *settings.public_names):
        known = ", ".join(settings.addresses)
        msg = f"{address} is no address of this server: {known}. Add it to public_names first."
        raise InputError(msg)
    named = zip((*settings.addresses, *settings.public_names), settings.addresses * 2, strict=True)
    dialled = dict(named).get(address, settings.address)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.issue(INVITATION, site, key.public_key(), life)
    with transaction(folder, SCHEMA) as connection:
        if valid_certificates(connection, site):
            msg = (
                f"{site} has joined and its certificate is valid. To let it join anew, take that "
                f"from it first: wardround server revoke {site!r} --server {folder}."
            )
            raise InputError(msg)
        _check_capitals(connection, site)
        row = (
            serial_text(certificate),
            site,
            time.time(),
            certificate.not_valid_after_utc.timestamp(),
        )
        connection.execute(_WITHDRAW, (time.time(), site))
        connection.execute("INSERT INTO invitations VALUES (?, ?, ?, ?, NULL, NULL)", row)
    return JoinToken(dialled, fingerprint(authority.certificate), certificate, key)


def _check_capitals(connection: sqlite3.Connection, site: str) -> None:
    """Check that no other site is meant by people, or by a file system, with this name."""
    now = time.time()
    for (other,) in connection.execute(_IN_USE, (now, now)):
        if same_somewhere((other, site)):
            msg = (
                f"{site} and {other} differ in capitals alone, and {other} is a site of this "
                f"server: write {other}, choose another name, or take that one out first."
            )
            raise InputError(msg)


def renew(folder: Path, site: str, key: ec.EllipticCurvePublicKey) -> str:
    """Return one more certificate for a site, in PEM; those that it has stay valid.

    Args:
        site: That holds a valid certificate.

    Raises:
        RefusedError: It has too many that are valid, or was revoked meanwhile.
        RunError: The database cannot be used.
    """
    authority, settings = open_authority(folder), open_server(folder).settings
    life = timedelta(days=settings.site_certificate_days)
    with transaction(folder, SCHEMA) as connection:
        held = valid_certificates(connection, site)
        if held == 0:
            raise RefusedError(Reason.NOT_A_SITE)
        if held >= MOST_CERTIFICATES:
            raise RefusedError(Reason.TOO_MANY)
        certificate = authority.issue(SITE, site, key, life)
        add_certificate(connection, site, certificate, None)
    return certificate.public_bytes(Encoding.PEM).decode()


def admit(folder: Path, serial: str, key: ec.EllipticCurvePublicKey, node_key: str) -> str:
    """Use up an invitation and return the site's certificate, in PEM; both or neither.

    Asked again for the same site key, it returns the same certificate: a reply that was lost on
    the way costs no second invitation.

    Args:
        serial: Of the invitation's certificate.
        key: For which the certificate is issued.
        node_key: By which Flower's SuperLink will know the site, in PEM.

    Raises:
        RefusedError: The invitation is unknown, used, expired or withdrawn.
        RunError: The database cannot be used.
    """
    authority, settings = open_authority(folder), open_server(folder).settings
    life = timedelta(days=settings.site_certificate_days)
    with transaction(folder, SCHEMA) as connection:
        row = connection.execute(
            "SELECT site, expires, used, cancelled FROM invitations WHERE serial = ?", (serial,)
        ).fetchone()
        if row is None:
            raise RefusedError(Reason.NOT_INVITED)
        site, expires, used, cancelled = row
        if used is not None:
            return _reply_again(connection.execute(_ISSUED, (serial,)).fetchone(), key)
        if cancelled is not None or expires < time.time():
            raise RefusedError(Reason.EXPIRED if cancelled is None else Reason.CANCELLED)
        if not put_member(connection, site, node_key):
            raise RefusedError(Reason.NODE_KEY)
        certificate = authority.issue(SITE, site, key, life)
        add_certificate(connection, site, certificate, serial)
        connection.execute(
            "UPDATE invitations SET used = ? WHERE serial = ?", (time.time(), serial)
        )
    return certificate.public_bytes(Encoding.PEM).decode()


_IN_USE = (
    "SELECT site FROM certificates WHERE revoked IS NULL AND expires > ? UNION "
    "SELECT site FROM invitations WHERE used IS NULL AND cancelled IS NULL AND expires > ?"
)
_ISSUED = "SELECT pem FROM certificates WHERE invitation = ? AND revoked IS NULL"
_WITHDRAW = (
    "UPDATE invitations SET cancelled = ? WHERE site = ? AND used IS NULL AND cancelled IS NULL"
)


def _reply_again(row: tuple[str] | None, key: ec.EllipticCurvePublicKey) -> str:
    if row is None or x509.load_pem_x509_certificate(row[0].encode()).public_key() != key:
        raise RefusedError(Reason.USED)
    return row[0]
