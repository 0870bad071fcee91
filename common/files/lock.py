"""One process at a time: a lock file that the kernel lets go with its holder, however that ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wardround.common.errors import WardroundError


@contextmanager
def held_alone(path: Path, refusal: WardroundError) -> Iterator[None]:
    """Hold a lock file while the context lasts; do not wait for it.

    Args:
        path: Of the lock file, made where it is missing. It stays.
        refusal: Is raised where another process holds it.

    Raises:
        WardroundError: The refusal.
        OSError: The file cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield
    finally:
        os.close(descriptor)
