"""Certificates of a hospital's own authority, for archives and receivers of tests."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM


def make_certificates(folder: Path, address: str = "127.0.0.1") -> None:
    """Write ``ca.pem``, and ``own.pem`` with ``own.key``, for an address, signed by it."""
    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hospital")])
    begin, end = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1)

    def signed(key: ec.EllipticCurvePrivateKey, is_ca: bool) -> x509.Certificate:
        subject = name if is_ca else x509.Name([])
        alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
            .add_extension(alternative, critical=not is_ca)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),
                critical=False,
            )
            .sign(authority, hashes.SHA256())
        )

    (folder / "ca.pem").write_bytes(signed(authority, True).public_bytes(_PEM))
    (folder / "own.pem").write_bytes(signed(own, False).public_bytes(_PEM))
    (folder / "own.key").write_bytes(
        own.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
