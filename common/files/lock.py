"""One process at a time: a lock that the kernel lets go with its holder, however that ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wardround.common.errors import WardroundError
from wardround.common.files.atomic import open_or_make
from wardround.common.runtime.system.files import lock, open_place


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


def open_lock(path: Path) -> int:
    """Open a folder, or a lock file, made where it is missing, to be locked.

    Raises:
        OSError: It cannot be.
    """
    if path.is_dir():
        return open_place(path)
    return open_or_make(path, os.O_RDWR)
