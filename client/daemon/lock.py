"""One daemon a site folder: the lock."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wardround.client.daemon.control_socket import ask_daemon
from wardround.common.errors import RunError, WardroundError
from wardround.common.files.lock import open_lock
from wardround.common.runtime.system.files import lock

LOCK_FILE = "site.lock"
_LOCK_SECONDS, _LOOK_SECONDS = 20.0, 0.1  # for the worker of a killed daemon to be gone


@contextmanager
def only_daemon(folder: Path) -> Iterator[int]:
    """Hold the lock of a site folder; give its descriptor.

    Raises:
        RunError: Another daemon holds it, or it cannot be made.
    """
    path, until = folder / LOCK_FILE, time.monotonic() + _LOCK_SECONDS
    try:
        descriptor = open_lock(path)
    except OSError as error:
        msg = f"cannot write {path} ({error.strerror}): start it under the folder's own account."
        raise RunError(msg) from None
    try:
        while not lock(descriptor, wait=False):
            # Nobody answers: it is the worker of a killed daemon, which is about to end.
            if _replies(folder) or time.monotonic() > until:
                msg = (
                    f"another daemon serves {folder}: look with 'wardround site status "
                    f"{folder}', end it with 'wardround site stop {folder}'."
                )
                raise RunError(msg)
            time.sleep(_LOOK_SECONDS)
        yield descriptor
    finally:
        os.close(descriptor)


def _replies(folder: Path) -> bool:
    try:
        return bool(ask_daemon(folder, "status"))
    except WardroundError:
        return False
