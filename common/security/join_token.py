"""The token of an invitation: where the server is, how to know it, and a right to join once.

It is text of one line: a word, and in base64url a version, the SHA-256 of the consortium's CA
certificate, the private key of the invitation, the server's address, the invitation's certificate,
and a checksum. The checksum finds slips of copying; it protects nothing.

Whoever holds a token can join in the site's place, once, until it expires. It opens nothing else,
and no hospital's own key is in it: the site makes its keys itself.
"""

import binascii
import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from pydantic import TypeAdapter, ValidationError

from wardround.common.errors import InputError
from wardround.common.runtime.printable import printable
from wardround.common.study.sections.fields import SiteName

_WORD, _VERSION = "wardround-", b"\x01"
_HASH, _SCALAR, _CHECK = 32, 32, 8  # bytes
_LONGEST = 4096  # characters
_CURVE = ec.SECP256R1
_NAME: TypeAdapter[str] = TypeAdapter(SiteName)


@dataclass(frozen=True, slots=True)
class JoinToken:
    """What a token says.

    Attributes:
        address: Of the server, "name:port".
        ca_sha256: Of the CA certificate in DER: what the server must show is the one with it.
        certificate: Of the invitation; its common name is the invited site.
        key: Of the invitation.
    """

    address: str
    ca_sha256: bytes
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def site(self) -> str:
        """The invited site."""
        return common_name(self.certificate.subject) or ""

    @property
    def expires(self) -> datetime:
        """When it can no longer be used."""
        return self.certificate.not_valid_after_utc

    def text(self) -> str:
        """Return the token as it is handed over."""
        address = self.address.encode()
        scalar = self.key.private_numbers().private_value.to_bytes(_SCALAR, "big")
        body = _VERSION + self.ca_sha256 + scalar + bytes([len(address)]) + address
        body += self.certificate.public_bytes(Encoding.DER)
        return _WORD + urlsafe_b64encode(body + _checksum(body)).decode().rstrip("=")


def parse_token(text: str) -> JoinToken:
    """Read a token; spaces and line breaks in it do not matter.

    Raises:
        InputError: It is damaged, cut off, or no token.
    """
    text = "".join(text.split())
    if not text.startswith(_WORD) or len(text) > _LONGEST:
        msg = (
            f"this is not the token of an invitation: one is a line that begins with '{_WORD}'. "
            "Copy the whole line that 'wardround server invite' printed."
        )
        raise InputError(msg)
    try:
        return _read(_decoded(text.removeprefix(_WORD)))
    except (ValueError, IndexError, binascii.Error):
        msg = (
            "the token is damaged or not complete: copy the whole line that "
            "'wardround server invite' printed, or ask for another."
        )
        raise InputError(msg) from None


def check_site_name(name: str) -> None:
    """Refuse what cannot be a site's name: it becomes the name of a folder, among other things.

    Raises:
        InputError: Says what can be.
    """
    try:
        _NAME.validate_python(name)
    except ValidationError as error:
        wanted = error.errors()[0]["msg"]
        msg = f"{printable(name, 80)!r} cannot be the name of a site: {wanted}."
        raise InputError(msg) from None


def common_name(name: x509.Name) -> str | None:
    """Return the common name of a subject, if it has exactly one that is text."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(found) != 1 or not isinstance(found[0].value, str):
        return None
    return found[0].value


def _decoded(text: str) -> bytes:
    """Return the bytes of a text that is written in the one way they can be.

    Raises:
        ValueError: It is not.
    """
    content = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if urlsafe_b64encode(content).decode().rstrip("=") != text:
        msg = "not canonical"
        raise ValueError(msg)
    body, check = content[:-_CHECK], content[-_CHECK:]
    if check != _checksum(body) or body[:1] != _VERSION:
        msg = "damaged"
        raise ValueError(msg)
    return body[1:]


def _read(body: bytes) -> JoinToken:
    ca_sha256, rest = body[:_HASH], body[_HASH:]
    scalar, rest = int.from_bytes(rest[:_SCALAR], "big"), rest[_SCALAR:]
    length, rest = rest[0], rest[1:]
    address, certificate = (
        rest[:length].decode("ascii"),
        x509.load_der_x509_certificate(rest[length:]),
    )
    token = JoinToken(address, ca_sha256, certificate, ec.derive_private_key(scalar, _CURVE()))
    check_site_name(token.site)
    if token.key.public_key() != certificate.public_key():
        msg = "does not belong together"
        raise ValueError(msg)
    return token


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(b"wardround token\n" + body).digest()[:_CHECK]
