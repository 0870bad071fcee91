"""The server's Ed25519 key for the signed record of its rounds, beside the CA's key."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.common.security.signing_key import open_key

LINEAGE_KEY_FOLDER = "signing"
_OWNER = "server"
LINEAGE_PUBLIC_FILE = f"{LINEAGE_KEY_FOLDER}/{_OWNER}.pub"


def open_lineage_key(folder: Path) -> Ed25519PrivateKey:
    """Return the key in a server folder; a server of an older version gets one now.

    Raises:
        InputError: It cannot be read or written, is damaged, or others may read it.
    """
    return open_key(folder / LINEAGE_KEY_FOLDER, owner=_OWNER)
