"""One process at a time: a lock that the kernel lets go with its holder, however that ends.

``flock`` locks an open file, not a name: a child that keeps the descriptor holds the lock with its
parent. Nothing else of this code base calls it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wardround.common.errors import WardroundError
from wardround.common.files.atomic import open_or_make


def lock(descriptor: int, wait: bool) -> bool:
    """Lock an open file or folder, until the last copy of the descriptor is closed.

    Args:
        wait: Whether to wait for whoever holds it.

    Returns:
        Whether it is locked now; always so after a wait.
    """
    import fcntl  # not on every system

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextmanager
def held_alone(path: Path, refusal: WardroundError | None = None) -> Iterator[int]:
    """Hold a lock while the context lasts; give its descriptor.

    Args:
        path: A folder, or a lock file, which is made where it is missing. It stays.
        refusal: Is raised where another process holds it; None waits for that process.

    Raises:
        WardroundError: The refusal.
        OSError: The file cannot be written.
    """
    descriptor = open_lock(path)
    try:
        if not lock(descriptor, wait=refusal is None) and refusal is not None:
            raise refusal
        yield descriptor
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file, as far as this system tells; it is not taken.

    Even to try would take it for a moment, and from whoever begins just then.
    """
    try:
        number = f":{path.stat().st_ino} "  # the device before it is another on layered disks
        held = Path("/proc/locks").read_text(encoding="ascii")
    except (OSError, ValueError):
        return False
    return any("FLOCK" in line and number in line for line in held.splitlines())


def open_lock(path: Path) -> int:
    """Open a folder, or a lock file, made where it is missing, for :func:`lock`.

    Raises:
        OSError: It cannot be.
    """
    if path.is_dir():
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return open_or_make(path, os.O_RDWR)


def is_held(path: Path) -> bool:
    """Return whether a process holds a lock file; where that cannot be told, it may be so."""
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
