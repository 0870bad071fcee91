"""Files of one JSON value a line: appended to, and read without a last line that is torn.

A line that was being written when its process was killed, or is being written now, has no end yet.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any


def split_lines(content: bytes) -> tuple[list[bytes], bytes]:
    """Return the lines that have their end, without it, and what follows the last of them.

    The second is empty where no line is torn.
    """
    *lines, torn = content.split(b"\n")
    return lines, torn


def read_json_lines(path: Path) -> list[Any]:
    """Return the values in a file; an absent file holds none, a torn last line is left out.

    Raises:
        ValueError: Another line is not JSON.
        OSError: The file cannot be read.
    """
    try:
        lines, _ = split_lines(path.read_bytes())
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line]


def append_line(descriptor: int, line: bytes, length: int, durable: bool) -> None:
    """Append to an open file that is this long; the line counts when this returns.

    Args:
        line: With its end.
        durable: Whether to wait until the disk has it.

    Raises:
        OSError: It cannot be written; the file is as it was.
    """
    try:
        os.lseek(descriptor, length, os.SEEK_SET)
        write_whole(descriptor, line)
        if durable:
            os.fsync(descriptor)
    except BaseException:
        with suppress(OSError):  # what did not reach the disk whole never counted
            os.ftruncate(descriptor, length)
        raise


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of the data; the kernel may take it in parts.

    Raises:
        OSError: It cannot be written; a part may have been.
    """
    written = 0
    while written < len(data):
        written += os.write(descriptor, data[written:])
