"""Files that only their owner may read, and files replaced as a whole."""

import os
from pathlib import Path

from wardround.common.errors import InputError
from wardround.common.files.durable import flush

OWNER_ONLY, READABLE = 0o600, 0o644
_OWNER_FOLDER = 0o700


def write_new(path: Path, content: bytes, mode: int = OWNER_ONLY, durable: bool = True) -> None:
    """Write a file that is not there yet.

    The mode holds from the first moment: nobody else can open the file before it is narrowed.

    Args:
        durable: Whether to wait until the disk has it.

    Raises:
        FileExistsError: It is there.
        OSError: It cannot be written; what was begun is removed.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def replace_file(path: Path, content: bytes, mode: int = OWNER_ONLY) -> None:
    """Put a file in the place of another: a reader sees the old one or the new one, whole.

    Raises:
        OSError: It cannot be written; the old one stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    write_new(temporary, content, mode)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter; one that is there stays as it is."""
    folder.mkdir(mode=_OWNER_FOLDER, parents=True, exist_ok=True)


def check_private(path: Path) -> None:
    """Refuse a private key that others may read.

    Raises:
        InputError: They may, or it is not there.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        msg = f"cannot read the private key {path} ({error.strerror}): restore it from a backup."
        raise InputError(msg) from None
    if os.name == "posix" and mode & 0o077:
        msg = f"others may read the private key {path}: chmod 600 it."
        raise InputError(msg)
