"""The consortium's certificate authority, and the four kinds of certificate that it issues.

Keys are ECDSA: P-384 for the authority, P-256 for what it issues. The authority signs nothing that
can sign further. A certificate says what it is for in its extended key usage (server or client) and
its organisational unit (``server``, ``site``, ``invitation``, ``operator``), both written by the
authority alone: of a signing request only the public key is taken over.
"""

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wardround.common.errors import InputError
from wardround.common.files.atomic import READABLE, make_private_folder, write_new
from wardround.common.security.join_token import common_name
from wardround.common.security.tls_key_pair import private_pem, read_certificate, read_private_key

CA_FOLDER = "ca"
CA_KEY, CA_CERTIFICATE = "ca.key", "ca.crt"
# Organisational units:
SERVER, SITE, INVITATION, OPERATOR = "server", "site", "invitation", "operator"
CA_LIFE = timedelta(days=3650)
_USAGES = {
    SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    SITE: ExtendedKeyUsageOID.CLIENT_AUTH,
    INVITATION: ExtendedKeyUsageOID.CLIENT_AUTH,
    OPERATOR: ExtendedKeyUsageOID.CLIENT_AUTH,
}
_BACKDATED = timedelta(hours=1)  # for a site whose clock is behind
_CURVES = (ec.SECP256R1, ec.SECP384R1)


@dataclass(frozen=True, slots=True)
class Identity:
    """What a certificate of this authority says of its holder.

    Attributes:
        unit: ``server``, ``site``, ``invitation`` or ``operator``.
        serial: In hex.
    """

    name: str
    unit: str
    serial: str
    begins: datetime
    expires: datetime

    def is_valid(self, now: datetime) -> bool:
        """Whether it is valid at a time."""
        return self.begins <= now <= self.expires


@dataclass(frozen=True)
class Authority:
    """The CA, with its key: it lives on the server and nowhere else."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def issue(
        self,
        unit: str,
        name: str,
        key: ec.EllipticCurvePublicKey,
        life: timedelta,
        alternative_names: Sequence[str] = (),
    ) -> x509.Certificate:
        """Issue a certificate.

        Args:
            unit: ``server``, ``site``, ``invitation`` or ``operator``.
            name: Its common name.
            life: From now; it never outlives the authority.
            alternative_names: Host names and addresses, for a server.
        """
        subject = _name(name, unit, _organisation(self.certificate))
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_key_usage(signs_certificates=False), True),
            (x509.ExtendedKeyUsage([_USAGES[unit]]), True),
            (self._authority_key_identifier, False),
            (x509.SubjectKeyIdentifier.from_public_key(key), False),
        ]
        if alternative_names:
            names = [_alternative(text) for text in alternative_names]
            extensions.append((x509.SubjectAlternativeName(names), False))
        now = datetime.now(UTC)
        builder = _builder(subject, key).issuer_name(self.certificate.subject)
        builder = builder.not_valid_before(now - _BACKDATED)
        builder = builder.not_valid_after(min(now + life, self.certificate.not_valid_after_utc))
        for extension, is_critical in extensions:
            builder = builder.add_extension(extension, is_critical)
        return builder.sign(self.key, hashes.SHA384())

    @cached_property
    def _authority_key_identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())


def make_authority(consortium: str, life: timedelta = CA_LIFE) -> Authority:
    """Make a new CA."""
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _name("Wardround CA", None, consortium)
    now, public = datetime.now(UTC), key.public_key()
    builder = (
        _builder(subject, public)
        .issuer_name(subject)
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(_key_usage(signs_certificates=True), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
    )
    return Authority(builder.sign(key, hashes.SHA384()), key)


def save_authority(folder: Path, authority: Authority) -> None:
    """Write a new CA into a server folder.

    Raises:
        FileExistsError: One is there.
        OSError: The folder cannot be written.
    """
    make_private_folder(folder / CA_FOLDER)
    write_new(folder / CA_FOLDER / CA_KEY, private_pem(authority.key))
    content = authority.certificate.public_bytes(Encoding.PEM)
    write_new(folder / CA_FOLDER / CA_CERTIFICATE, content, READABLE)


def open_authority(folder: Path) -> Authority:
    """Open the CA of a server folder.

    Raises:
        InputError: It is not there, damaged, or others may read its key.
    """
    certificate = read_certificate(folder / CA_FOLDER / CA_CERTIFICATE)
    key = read_private_key(folder / CA_FOLDER / CA_KEY)
    if key.public_key() != certificate.public_key():
        msg = f"{CA_KEY} in {folder / CA_FOLDER} is not that of {CA_CERTIFICATE}: restore both."
        raise InputError(msg)
    return Authority(certificate, key)


def fingerprint(certificate: x509.Certificate) -> bytes:
    """Return the SHA-256 of a certificate in DER."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()


def identify(content: bytes, ca: x509.Certificate) -> Identity | None:
    """Return what a certificate says, if the CA issued it for a purpose that is known.

    Whether it is valid today, and not revoked, is another question.

    Args:
        content: The certificate in DER, as TLS shows it.
    """
    try:
        certificate = x509.load_der_x509_certificate(content)
        certificate.verify_directly_issued_by(ca)
        units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        name, unit = common_name(certificate.subject), str(units[0].value) if units else ""
        usages = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return None
    if name is None or len(units) != 1 or usages != [_USAGES.get(unit)]:
        return None
    begins, expires = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Identity(name, unit, serial_text(certificate), begins, expires)


def serial_text(certificate: x509.Certificate) -> str:
    """Return a certificate's serial number in hex."""
    return f"{certificate.serial_number:x}"


def read_request(pem: str) -> tuple[str, ec.EllipticCurvePublicKey] | None:
    """Return the name and key of a signing request; None if it is not one that can be used.

    It must be signed by its own key: who asks has the private half.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key, name = request.public_key(), common_name(request.subject)
        if name is None or not request.is_signature_valid:
            return None
    except (ValueError, TypeError, InvalidSignature):
        return None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        return None
    return name, key


def _builder(subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    serial = x509.random_serial_number()
    return x509.CertificateBuilder().subject_name(subject).public_key(key).serial_number(serial)


def _name(common: str, unit: str | None, organisation: str) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)]
    if unit is not None:
        parts.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit))
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _organisation(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value)


def _alternative(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
