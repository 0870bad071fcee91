"""What has to survive a power cut."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder.

    Raises:
        OSError: The disk did not take it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
