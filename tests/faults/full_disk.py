"""A small file system of its own for a folder, to be filled to the last byte. Needs root, on Linux.

It is mounted where only this process and what it starts can see it, and goes when they end.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.faults.not_here import NotHereError

_CLONE_NEWNS = 0x00020000
_BLOCK = "1024"  # bytes: the smallest, so that little fits into blocks that are begun
_FILLER = "filler"


@cache
def own_mounts() -> str:
    """Have what is mounted from now on be seen by this process alone; return why not, if not."""
    try:
        failed = ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS)
    except AttributeError:
        return "no Linux"
    if failed:
        return os.strerror(ctypes.get_errno())
    return _said(["mount", "--make-rprivate", "/"])


class SmallDisk:
    """The file system of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Leave no byte free."""
        with (self.folder / _FILLER).open("wb", buffering=0) as stream:
            for length in (65_536, 1024):
                try:
                    while True:
                        stream.write(bytes(length))
                except OSError:
                    os.fsync(stream.fileno())

    def clear(self) -> None:
        """Give back what :meth:`fill` took."""
        (self.folder / _FILLER).unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, image: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Move a folder to a file system of its own, and back at the end.

    Nobody may have a file of it open at either time.

    Raises:
        NotHereError: This machine does not let us.
    """
    if reason := own_mounts():
        msg = f"no file system can be mounted ({reason}): needs root"
        raise NotHereError(msg)
    with image.open("wb") as stream:
        stream.truncate(megabytes * 2**20)
    if _said(["mkfs.ext4", "-q", "-b", _BLOCK, "-m", "0", str(image)]):
        msg = "mkfs.ext4 is missing"
        raise NotHereError(msg)
    aside = image.with_suffix(".aside")
    shutil.copytree(folder, aside)
    if reason := _said(["mount", "-o", "loop", str(image), str(folder)]):
        msg = f"no file system can be mounted ({reason})"
        raise NotHereError(msg)
    disk = SmallDisk(folder)
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield disk
        disk.clear()
        shutil.rmtree(aside)
        shutil.copytree(folder, aside, ignore=lambda *_: ["lost+found"])
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        shutil.rmtree(folder)
        shutil.move(aside, folder)
        image.unlink()


def _said(command: list[str]) -> str:
    """Return what a command says that fails; "" if it does not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        return f"no {command[0]}"
    return (done.stderr.strip() or str(done.returncode)) if done.returncode else ""
