"""The keys of a site that has joined a server, and what its TLS needs of them.

``keys/`` holds ``tls.key`` with its certificate ``tls.crt``, the consortium's ``ca.crt``, and
``node.key``, by which Flower's SuperLink knows the site. Keys are made here, are readable by their
owner alone, and are part of no message.
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from wardround.client.site.folder import open_site
from wardround.common.errors import InputError
from wardround.common.security.tls_key_pair import mend_pair, read_certificate, read_private_key

TLS_KEY, TLS_CERTIFICATE, CA_CERTIFICATE, NODE_KEY = "tls.key", "tls.crt", "ca.crt", "node.key"


@dataclass(frozen=True, slots=True)
class SiteTls:
    """Where a site's server is, and the files with which it connects; all in PEM.

    Attributes:
        address: Of the server, "name:port".
        expires: When the site's certificate does.
    """

    ca_path: Path
    cert_path: Path
    key_path: Path
    node_key_path: Path
    address: str
    expires: datetime


def load_site_tls(site_folder: Path) -> SiteTls:
    """Return the TLS files of a site folder, once they are whole and belong together.

    Raises:
        DataError: It is no site folder.
        InputError: The site has not joined; a file is damaged or readable by others; or the
            certificate has expired.
    """
    site = open_site(site_folder)
    keys = site.key_folder
    if site.settings.server is None or not (keys / TLS_CERTIFICATE).exists():
        msg = (
            f"{site.name} has joined no server: ask the server's operator for an invitation, then "
            f"'wardround site join TOKEN --folder {site_folder}'."
        )
        raise InputError(msg)
    certificate = mend_pair(keys / TLS_KEY, keys / TLS_CERTIFICATE)
    read_certificate(keys / CA_CERTIFICATE)
    read_private_key(keys / NODE_KEY)
    expires = certificate.not_valid_after_utc
    if expires < datetime.now(UTC):
        msg = (
            f"the certificate of {site.name} expired on {expires:%Y-%m-%d %H:%M} UTC: ask the "
            f"server's operator for an invitation, then 'wardround site join TOKEN --folder "
            f"{site_folder} --again'."
        )
        raise InputError(msg)
    return SiteTls(
        keys / CA_CERTIFICATE,
        keys / TLS_CERTIFICATE,
        keys / TLS_KEY,
        keys / NODE_KEY,
        site.settings.server.address,
        expires,
    )


def make_client_context(tls: SiteTls) -> ssl.SSLContext:
    """Return a site's TLS: version 1.2 or newer, the consortium's CA and no other."""
    context = bare_context()
    context.load_verify_locations(cafile=tls.ca_path)
    context.load_cert_chain(tls.cert_path, tls.key_path)
    return context


def bare_context() -> ssl.SSLContext:
    """Return a TLS client that trusts nobody yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def make_tls_key() -> ec.EllipticCurvePrivateKey:
    """Make a key for TLS."""
    return ec.generate_private_key(ec.SECP256R1())


def make_node_key() -> ec.EllipticCurvePrivateKey:
    """Make a node key, on the curve that Flower's own tools use."""
    return ec.generate_private_key(ec.SECP384R1())


def signing_request(key: ec.EllipticCurvePrivateKey, site: str) -> str:
    """Return a certificate signing request in PEM: the site's name, the public key, a signature."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
