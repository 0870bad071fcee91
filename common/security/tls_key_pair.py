"""A TLS key and its certificate, which change together though they are two files.

The new key is written first, beside the old one, as ``tls.key.next``. Then the certificate takes
the old one's place, and last the key. A process killed in between leaves a certificate that fits
the key beside it: :func:`mend_pair` finishes the step. Who reads the pair meanwhile may finish it
too; who renews it does so alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from wardround.common.errors import InputError
from wardround.common.files.account import this_account
from wardround.common.files.atomic import READABLE, flush_folder, replace_file
from wardround.common.files.lock import held_alone
from wardround.common.runtime.system.files import is_open_to_others

_LOCK_FILE = ".renewal.lock"
_RENEWED_BELOW = 1 / 3  # of a certificate's lifetime is left


def next_key_path(key_path: Path) -> Path:
    """Return where the key of a renewal waits for its certificate."""
    return key_path.with_name(f"{key_path.name}.next")


@contextmanager
def renewing_alone(folder: Path) -> Iterator[None]:
    """Hold the right to renew the pair of a folder, so that two renewals do not mix their keys.

    Raises:
        InputError: Another renewal holds it.
        OSError: The folder cannot be written.
    """
    refusal = InputError(f"another renewal is under way in {folder}: wait for it.")
    with held_alone(folder / _LOCK_FILE, refusal):
        yield


def finish_pair(key_path: Path, certificate_path: Path, certificate: bytes) -> None:
    """Put a certificate and the key that waits for it in their places.

    Raises:
        OSError: The disk is full, say; :func:`mend_pair` goes on from there.
    """
    replace_file(certificate_path, certificate, READABLE)
    with suppress(FileNotFoundError):  # who read the pair in between has put it in its place
        next_key_path(key_path).replace(key_path)
    flush_folder(key_path.parent)


def mend_pair(key_path: Path, certificate_path: Path) -> x509.Certificate:
    """Return the certificate, once it and the key in the two files belong together.

    Raises:
        InputError: One is missing, damaged or readable by others, or they do not belong together.
    """
    certificate, waiting = read_certificate(certificate_path), next_key_path(key_path)
    if waiting.exists() and _fits(waiting, certificate):
        with suppress(FileNotFoundError):  # who renews it has put it in its place
            waiting.replace(key_path)
    if not _fits(key_path, certificate):
        msg = (
            f"{certificate_path} is not the certificate of the key {key_path}: "
            "restore both from the same backup."
        )
        raise InputError(msg)
    return certificate


def is_renewal_due(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether less than a third of a certificate's life is left."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now < life * _RENEWED_BELOW


def read_certificate(path: Path) -> x509.Certificate:
    """Read a certificate.

    Raises:
        InputError: There is none, or it is damaged.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        msg = f"cannot read the certificate {path} ({error.strerror}): {_remedy(path, error)}"
        raise InputError(msg) from None
    except ValueError:
        msg = f"{path} is not a certificate: restore it from a backup."
        raise InputError(msg) from None


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key of an elliptic curve.

    Raises:
        InputError: There is none, it is damaged, or others may read it.
    """
    check_private(path)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        msg = f"cannot read the private key {path} ({error.strerror}): {_remedy(path, error)}"
        raise InputError(msg) from None
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        msg = f"{path} is not a private key of an elliptic curve: restore it from a backup."
        raise InputError(msg)
    return key


def check_private(path: Path) -> None:
    """Refuse a private key that others may read.

    Raises:
        InputError: They may, or it is not there.
    """
    try:
        found = path.stat()
    except OSError as error:
        msg = f"cannot read the private key {path} ({error.strerror}): {_remedy(path, error)}"
        raise InputError(msg) from None
    if is_open_to_others(found):
        msg = f"others may read the private key {path}: chmod 600 it."
        raise InputError(msg)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as it stands in its file."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key as text; Flower's SuperLink knows a node by this."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _remedy(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "restore it from a backup."
    return f"make it readable for this account, {this_account().name}."


def _fits(key_path: Path, certificate: x509.Certificate) -> bool:
    return read_private_key(key_path).public_key() == certificate.public_key()
