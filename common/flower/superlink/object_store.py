"""The parts of messages that wait to be fetched: small ones in memory, large ones on disk.

The replies of many sites wait until the study takes them, one after the other. On disk they are
the kernel's to keep in memory as long as there is room; the link itself holds none of them.

Written against Flower 1.41; ``tests/unit/common/flower/superlink/test_partial_replies.py`` holds
the contract.
"""

import os
import shutil
from pathlib import Path

from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore

from wardround.common.files.atomic import OWNER_ONLY, make_private_folder
from wardround.common.runtime.system.files import PLAINLY

_LARGE_BYTES = 65_536  # smaller ones are many: a file each would cost more than the memory
_ON_DISK = b"on disk"


class DiskObjectStore(InMemoryObjectStore):
    """Flower's object store, with a folder for what is large."""

    def __init__(self, folder: Path) -> None:
        """Begin with nothing.

        Args:
            folder: It is emptied: what an earlier process left there is of no use.

        Raises:
            OSError: The folder cannot be made.
        """
        super().__init__()
        shutil.rmtree(folder, ignore_errors=True)
        make_private_folder(folder)
        self._folder = folder

    def put(self, object_id: str, object_content: bytes) -> None:
        """Store an object whose name was announced, once its content is what its name says."""
        super().put(object_id, object_content)
        if len(object_content) < _LARGE_BYTES:
            return
        with self.lock_store:
            entry = self.store[object_id]
            if entry.content is _ON_DISK:
                return
            entry.content, entry.is_available = b"", False
            with open(self._place(object_id), "wb", opener=_open_private) as stream:
                stream.write(object_content)
            entry.content, entry.is_available = _ON_DISK, True

    def get(self, object_id: str) -> bytes | None:
        """Return an object; empty if it has not come yet, None if it is not known."""
        with self.lock_store:
            content = super().get(object_id)
            return self._place(object_id).read_bytes() if content is _ON_DISK else content

    def has(self, object_id: str) -> bool:
        """Whether an object has come."""
        with self.lock_store:
            entry = self.store.get(object_id)
            return entry is not None and entry.is_available

    def length(self, object_id: str) -> int:
        """Return the bytes of an object that has come.

        Raises:
            LookupError: It has not.
        """
        with self.lock_store:
            content = self._come(object_id)
            return self._place(object_id).stat().st_size if content is _ON_DISK else len(content)

    def begins_with(self, object_id: str, prefix: bytes) -> bool:
        """Whether an object that has come begins with these bytes; it is not read for that.

        Raises:
            LookupError: It has not.
        """
        with self.lock_store:
            content = self._come(object_id)
            if content is not _ON_DISK:
                return content.startswith(prefix)
            with self._place(object_id).open("rb") as stream:
                return stream.read(len(prefix)) == prefix

    def content(self, object_id: str) -> bytes:
        """Return an object that has come.

        Raises:
            LookupError: It has not.
        """
        with self.lock_store:
            content = self._come(object_id)
            return self._place(object_id).read_bytes() if content is _ON_DISK else content

    def delete(self, object_id: str) -> None:
        """Remove an object, and of its parts those that nothing else is made of."""
        with self.lock_store:
            super().delete(object_id)
            if object_id not in self.store:
                self._place(object_id).unlink(missing_ok=True)

    def _come(self, object_id: str) -> bytes:
        entry = self.store[object_id]
        if not entry.is_available:
            raise KeyError(object_id)
        return entry.content

    def _place(self, object_id: str) -> Path:
        return self._folder / object_id


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | PLAINLY, OWNER_ONLY)
