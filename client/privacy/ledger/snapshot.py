"""A name for the patients that a site trains on, which tells nothing about them."""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from wardround.client.privacy.ledger.entries import LedgerError
from wardround.client.privacy.ledger.file import flush_folder

SALT_FILE = "salt"
_SALT_BYTES = 32  # 256 bits: no patient is found by trying identifiers


def snapshot_of(patients: Iterable[str], salt: bytes) -> str:
    """Return the keyed hash of a set of patients: 64 hexadecimal digits.

    Who knows an identifier but not the site's salt cannot tell whether it is in the set. Neither
    the order nor the number of a patient's examinations matters.
    """
    listed = json.dumps(sorted(set(patients))).encode()
    return hmac.new(salt, listed, hashlib.sha256).hexdigest()


def open_salt(folder: Path, durable: bool = True) -> bytes:
    """Return the secret of a ledger's folder, drawn at the first call.

    Raises:
        LedgerError: The file is damaged.
    """
    path = folder / SALT_FILE
    if not path.exists():
        _draw(path, durable)
    salt = path.read_bytes()
    if len(salt) != _SALT_BYTES:
        msg = (
            f"{path} holds {len(salt)} bytes and not {_SALT_BYTES}: put a copy back, or remove it "
            "(the same patients then have another name in later entries, and no budget changes)."
        )
        raise LedgerError(msg)
    return salt


def _draw(path: Path, durable: bool) -> None:
    temporary = path.with_suffix(".part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(_SALT_BYTES))
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    if durable:
        flush_folder(path.parent)
