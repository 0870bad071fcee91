"""What files have on some systems only: locks, owners, modes that bind, folders that open."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ROOT = 0
_OTHERS = 0o077
_OWNER_ONLY_MASK = 0o177
# No child inherits what is opened with this, and no byte of it is changed (Windows' line ends).
PLAINLY: int = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_FOLDER_ITSELF: int = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_HAS_OWNERS = hasattr(os, "geteuid") and hasattr(os, "fchown")
OPENS_FOLDERS = hasattr(os, "O_DIRECTORY")  # elsewhere the names in one need no wait


def lock(descriptor: int, wait: bool) -> bool:
    """Lock an open file or folder, until the last copy of the descriptor is closed.

    ``flock`` locks an open file, not a name: a child that keeps the descriptor holds the lock with
    its parent. The kernel lets it go with its holder, however that ends.

    Args:
        wait: Whether to wait for whoever holds it.

    Returns:
        Whether it is locked now; always so after a wait, and on a system without such locks.

    Raises:
        OSError: The disk knows no locks.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Return whether a process holds a lock file; where that cannot be told, it may be so.

    On a system without such locks nobody holds one.
    """
    try:
        import fcntl
    except ImportError:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | PLAINLY)
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


def open_place(path: Path) -> int:
    """Open a folder, to lock it, or a file, to read it.

    Raises:
        OSError: It cannot be; on some systems no folder can.
    """
    return os.open(path, os.O_RDONLY | PLAINLY)


def open_folder_itself(path: Path) -> int:
    """Open a folder, and nothing that a link leads to.

    Raises:
        OSError: It is none, or cannot be opened.
    """
    return os.open(path, os.O_RDONLY | _FOLDER_ITSELF | PLAINLY)


def open_to_flush(path: Path) -> int:
    """Open a file, or a folder where ``OPENS_FOLDERS``, to wait until the disk has it.

    Raises:
        OSError: It cannot be opened.
    """
    # Windows flushes only what is open for writing.
    return os.open(path, (os.O_RDONLY if OPENS_FOLDERS else os.O_RDWR) | PLAINLY)


def owner_to_keep(folder: Path) -> tuple[int, int] | None:
    """Return account and group of a folder where they are others than root's, and this is root."""
    if not _HAS_OWNERS or os.geteuid() != _ROOT:
        return None
    found = folder.stat()
    return (found.st_uid, found.st_gid) if found.st_uid else None


def give_to(descriptor: int, owner: tuple[int, int]) -> None:
    """Give an open file to an account and a group.

    Raises:
        OSError: It cannot be given.
    """
    os.fchown(descriptor, *owner)


def is_open_to_others(found: os.stat_result) -> bool:
    """Whether other accounts may open a file; not said where modes do not say it."""
    return _HAS_OWNERS and bool(found.st_mode & _OTHERS)


def may_use(path: Path, mode: int) -> bool:
    """Whether this account, the one that it acts as, may use a file so (``os.R_OK`` and so on)."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def read_at(descriptor: int, length: int, start: int) -> bytes:
    """Return bytes of an open file; threads may share it, where the system can read so.

    Raises:
        OSError: They cannot be read.
    """
    if hasattr(os, "pread"):
        return os.pread(descriptor, length, start)
    os.lseek(descriptor, start, os.SEEK_SET)
    return os.read(descriptor, length)


@contextmanager
def opened_by_owner_alone() -> Iterator[None]:
    """Make what is made within for this account alone, from its first moment."""
    before = os.umask(_OWNER_ONLY_MASK)
    try:
        yield
    finally:
        os.umask(before)


def short_temporary_folder() -> str | None:
    """Return where the path of a socket stays short; None where the system has no such place."""
    return "/tmp" if OPENS_FOLDERS else None
