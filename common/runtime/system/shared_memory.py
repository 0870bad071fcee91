"""Memory that processes share and that goes with the last of them, however they end.

Named shared memory stays where all processes are killed at once, as a batch system does: nobody is
left who would free it. On Linux a segment is a file without a name, which the others open through
the process that made it. Elsewhere it is the standard library's.
"""

import mmap
import os
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from typing import Protocol

from wardround.common.runtime.system.files import PLAINLY

_WAY, _BEFORE_NUMBER = "/proc/{}/fd/{}", ":"


class Segment(Protocol):
    """Memory of some processes."""

    @property
    def name(self) -> str:
        """By which the others open it."""

    @property
    def size(self) -> int:
        """Bytes; at least what was asked for."""

    @property
    def buf(self) -> memoryview | None:
        """The bytes; None once it is closed."""

    def close(self) -> None:
        """Use it no longer, in this process."""

    def unlink(self) -> None:
        """Have nobody open it from now on; for whoever made it."""


def make_segment(size: int) -> Segment:
    """Make memory of so many bytes.

    Raises:
        OSError: There is no room.
    """
    if hasattr(os, "memfd_create"):
        with suppress(PermissionError, NotImplementedError):  # some sandboxes know none
            return _Unnamed.make(size)
    return SharedMemory(create=True, size=size)


def open_segment(name: str) -> Segment:
    """Open memory that another process made.

    Raises:
        OSError: It is not there any more.
    """
    way, is_unnamed, number = name.partition(_BEFORE_NUMBER)
    if not is_unnamed:
        return SharedMemory(name=name)
    descriptor = os.open(way, os.O_RDWR | PLAINLY)
    if os.fstat(descriptor).st_ino != int(number):  # closed meanwhile, and its number used again
        os.close(descriptor)
        raise FileNotFoundError(name)
    return _Unnamed(descriptor)


class _Unnamed:
    """A file in memory without a name."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        # No other file has both, so that a name never means another segment later on.
        self.name = _WAY.format(os.getpid(), descriptor) + f"{_BEFORE_NUMBER}{found.st_ino}"
        self.size = found.st_size
        self._map = mmap.mmap(descriptor, self.size)
        self.buf: memoryview | None = memoryview(self._map)

    @classmethod
    def make(cls, size: int) -> "_Unnamed":
        descriptor = os.memfd_create("wardround", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, size)
        return cls(descriptor)

    def close(self) -> None:
        if self.buf is None:
            return
        self.buf.release()
        self.buf = None
        self._map.close()
        os.close(self._descriptor)

    def unlink(self) -> None:
        """Nothing is to be done: it has no name."""
