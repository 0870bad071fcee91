"""Files of one JSON value a line: appended to, and read without a last line that is torn.

A line that was being written when its process was killed, or is being written now, has no end yet.

The lines of a **hash chain** are each bound to the one before, so that none can be changed or
moved. Such a line is the canonical JSON of its content with its ``number``, the hash of the line
before as ``previous``, and its own ``hash``: the SHA-256 over all of these but itself. A chain may
be signed: then a ``signature`` of each hash stands beside it. Somebody who rewrites an unsigned
chain, or cuts off the end of any, is found by who remembers a :class:`ChainHead` of it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from wardround.common.files.atomic import open_or_make

NO_HASH = "0" * 64  # what the first line of a chain follows


def split_lines(content: bytes) -> tuple[list[bytes], bytes]:
    """Return the lines that have their end, without it, and what follows the last of them.

    The second is empty where no line is torn.
    """
    *lines, torn = content.split(b"\n")
    return lines, torn


def read_json_lines(path: Path) -> list[Any]:
    """Return the values in a file; an absent file holds none, a torn last line is left out.

    Raises:
        ValueError: Another line is not JSON, or nested too deeply to be read.
        OSError: The file cannot be read.
    """
    try:
        lines, _ = split_lines(path.read_bytes())
    except FileNotFoundError:
        return []
    try:
        return [json.loads(line) for line in lines if line]
    except RecursionError:
        msg = "a line is nested too deeply"
        raise ValueError(msg) from None


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


def append_after_torn(path: Path, block: bytes) -> None:
    """Append whole lines for good; a last one that a killed process left torn is written over.

    Args:
        block: One line or several, each with its end.

    Raises:
        OSError: They cannot be written.
    """
    descriptor = open_or_make(path, os.O_RDWR)
    try:
        _, torn = split_lines(path.read_bytes())
        length = os.fstat(descriptor).st_size - len(torn)
        os.ftruncate(descriptor, length)
        append_line(descriptor, block, length, durable=True)
    finally:
        os.close(descriptor)


def write_whole(descriptor: int, data: bytes) -> None:
    """Write all of the data; the kernel may take it in parts.

    Raises:
        OSError: It cannot be written; a part may have been.
    """
    written = 0
    while written < len(data):
        written += os.write(descriptor, data[written:])


class BrokenLineError(Exception):
    """A line is not what was written there; the text says how, e.g. "was changed"."""


@dataclass(frozen=True, slots=True)
class ChainHead:
    """The state of a chain: who keeps it can tell whether it was cut off or is another one.

    Attributes:
        entries: How many there are; 0 where there are none, or nothing is known.
        hash: Of the last of them, which tells nothing of what it says.
    """

    entries: int = 0
    hash: str = ""

    def or_later(self, other: "ChainHead") -> "ChainHead":
        """Return the other head if it is later, this one otherwise."""
        return other if other.entries > self.entries else self

    def contradicts(self, other: "ChainHead") -> bool:
        """Return whether both cannot be of one chain."""
        return self.entries == other.entries and self.hash != other.hash


def canonical(content: Mapping[str, object]) -> bytes:
    """Return the one way in which content is written: keys in order, no spaces, ASCII.

    Raises:
        ValueError: A number is not finite.
    """
    text = json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode()


def hash_of(content: Mapping[str, object]) -> str:
    """Return the SHA-256 over content, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(content)).hexdigest()


def to_line(
    content: Mapping[str, object],
    number: int,
    previous: str,
    sign: Callable[[str], str] | None = None,
) -> tuple[bytes, str]:
    """Return a line without its end, and its hash.

    Args:
        number: Its place.
        previous: The hash of the line before; ``NO_HASH`` for the first.
        sign: Returns the signature of a hash; None in a chain that is not signed.
    """
    sealed = {**content, "number": number, "previous": previous}
    stated = hash_of(sealed)
    signature = {} if sign is None else {"signature": sign(stated)}
    return canonical({**sealed, "hash": stated, **signature}), stated


def from_line(
    line: bytes,
    number: int,
    previous: str,
    verify: Callable[[str, str], None] | None = None,
) -> tuple[dict[str, Any], str]:
    """Return the content of a line, with ``number`` and ``previous`` and nothing beside, and hash.

    Args:
        number: The place where it stands.
        previous: The hash of the line before.
        verify: Is given hash and signature, and raises BrokenLineError; None in a chain that is
            not signed.

    Raises:
        BrokenLineError: It is not the line that was written after that one.
    """
    try:
        content = json.loads(line)
        if canonical(content) != line:
            _refuse("is not written as an entry is")
        stated = content.pop("hash")
        signature = "" if verify is None else str(content.pop("signature"))
        if (content["number"], content["previous"]) != (number, previous):
            _refuse("does not follow the one before it")
        if hash_of(content) != stated:
            _refuse("was changed")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        _refuse("is not an entry")
    if verify is not None:
        verify(stated, signature)
    return content, stated


def _refuse(fact: str) -> NoReturn:
    raise BrokenLineError(fact) from None
