"""A name for the patients that a site trains on, which tells nothing about them."""

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from pathlib import Path

from wardround.client.privacy.ledger.entries import LedgerError
from wardround.common.files.atomic import replace_file

SALT_FILE = "salt"
_SALT_BYTES = 32  # 256 bits: no patient is found by trying identifiers


def snapshot_of(patients: Iterable[str], salt: bytes) -> str:
    """Return the keyed hash of a set of patients: 64 hexadecimal digits.

    Who knows an identifier but not the site's salt cannot tell whether it is in the set. Neither
    the order nor the number of a patient's examinations matters.
    """
    listed = json.dumps(sorted(set(patients))).encode()
    return hmac.new(salt, listed, hashlib.sha256).hexdigest()


def parts_are_mixed(site_folder: Path) -> bool:
    """Return whether some patient of a site has changed its part, so that all are one account.

    A patient's part follows from the identifier, or stands in the manifest, and is taken to stay.
    """
    return False


def open_salt(folder: Path, durable: bool = True) -> bytes:
    """Return the secret of a ledger's folder, drawn at the first call.

    Raises:
        LedgerError: The file is damaged.
    """
    path = folder / SALT_FILE
    if not path.exists():
        replace_file(path, secrets.token_bytes(_SALT_BYTES), durable=durable)
    salt = path.read_bytes()
    if len(salt) != _SALT_BYTES:
        msg = (
            f"{path} holds {len(salt)} bytes and not {_SALT_BYTES}: put a copy back, or remove it "
            "(the same patients then have another name in later entries, and no budget changes)."
        )
        raise LedgerError(msg)
    return salt
