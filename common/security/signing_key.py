"""An Ed25519 key of a site or a server: made at first use, readable by its owner alone."""

from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from wardround.common.errors import InputError
from wardround.common.files.atomic import BY_UMASK, create_file, make_folder, replace_file
from wardround.common.runtime.system.files import is_open_to_others

KEY_FILE, PUBLIC_FILE = "site.key", "site.pub"


def open_key(folder: Path, durable: bool = True, owner: str = "site") -> Ed25519PrivateKey:
    """Return the key in a folder; where there is none, one is made, with its public half beside it.

    Args:
        durable: Whether a new key waits until the disk has it.
        owner: Whose key it is, and how its files are called: ``site.key`` and ``site.pub``.

    Raises:
        InputError: The key cannot be read or written, is damaged, or others may read it.
    """
    path = folder / f"{owner}.key"
    try:
        if not path.exists():
            _make_key(path, durable)
        _check_private(path, owner)
        key = load_pem_private_key(path.read_bytes(), password=None)
    except ValueError:
        key = None
    except OSError as error:
        msg = f"cannot use the {owner}'s key {path} ({error.strerror}): check the folder's owner."
        raise InputError(msg) from None
    if not isinstance(key, Ed25519PrivateKey):
        msg = f"{path} is not an Ed25519 key: restore it from a backup."
        raise InputError(msg)
    return key


def open_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public key, e.g. the one beside a site's key.

    Raises:
        InputError: There is none, or it is damaged.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError:
        key = None
    except OSError as error:
        msg = (
            f"cannot read the public key {path} ({error.strerror}): give the site's {PUBLIC_FILE}."
        )
        raise InputError(msg) from None
    if not isinstance(key, Ed25519PublicKey):
        msg = f"{path} is not an Ed25519 public key: give the site's {PUBLIC_FILE}."
        raise InputError(msg)
    return key


def _make_key(path: Path, durable: bool) -> None:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    make_folder(path.parent)
    with suppress(FileExistsError):  # another process has made the key meanwhile
        create_file(path, private, durable=durable)
        replace_file(path.with_suffix(".pub"), public, BY_UMASK, durable)


def _check_private(path: Path, owner: str) -> None:
    if is_open_to_others(path.stat()):
        msg = (
            f"others may read the {owner}'s key {path}: chmod 600 it, or remove it to make another."
        )
        raise InputError(msg)
