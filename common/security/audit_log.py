"""A site's audit log: one line an entry, each chained to the one before and signed.

An entry holds the hash of the entry before it, so that nothing can be changed, left out or moved;
and a signature by the site's key, so that nobody else can write the chain anew. What a chain cannot
show is that its end was cut off: for that somebody else must know how long it was. A :class:`Head`
is all they need to keep.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.common.errors import AuditError
from wardround.common.files.atomic import flush_folder
from wardround.common.files.lock import lock

LOG_FILE = "log.jsonl"
PURPOSE = b"wardround audit 1\n"  # a signature for this is none for anything else


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What an entry says.

    Attributes:
        kind: ``site_info``, ``update``, ``evaluation``, ``refusal``, ``decision`` or ``repair``.
        verdict: ``allow``, or ``deny`` and the rules or the fault, in fixed words.
        study: The study's digest.
        bytes: Size of what left; 0 where nothing did.
        sha256: Of its content.
    """

    kind: str
    verdict: str = "allow"
    study: str = ""
    run: str = ""
    round: int = 0
    attempt: int = 0
    bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a log: who keeps it can tell whether the log was cut off or rewritten later.

    Attributes:
        entries: How many there are.
        hash: Of the last one.
    """

    entries: int
    hash: str


EMPTY = Head(0, "0" * 64)


class AuditLog:
    """The log in a folder, for whoever writes it.

    Several processes may write in turn: each append looks at what is there.

    Args:
        durable: Whether an append waits until the disk has it.
    """

    def __init__(self, folder: Path, key: Ed25519PrivateKey, durable: bool = True) -> None:
        self._path = folder / LOG_FILE
        self._key = key
        self._durable = durable
        self._head = EMPTY
        self._length = 0

    def append(self, event: Event) -> Head:
        """Write an entry and return the head that ends with it.

        Raises:
            AuditError: The log cannot be written, or its last line is not an entry.
        """
        try:
            with _open_alone(self._path, self._durable) as stream:
                self._catch_up(stream)
                return self._write(stream, event)
        except OSError as error:
            msg = f"cannot write the audit log {self._path} ({error.strerror}): make room for it."
            raise AuditError(msg) from None

    def _catch_up(self, stream: FileIO) -> None:
        """Learn the head from the file, where it is not as this process left it."""
        length = os.fstat(stream.fileno()).st_size
        if length == self._length:
            return
        stream.seek(0)
        *lines, torn = stream.readall().split(b"\n")
        self._head = Head(len(lines), _hash_in(lines[-1], self._path)) if lines else EMPTY
        self._length = length - len(torn)
        if torn:  # a process was killed while it wrote: nothing has left on the strength of it
            stream.truncate(self._length)
            self._write(stream, Event(kind="repair", bytes=len(torn)))

    def _write(self, stream: FileIO, event: Event) -> Head:
        line, head = _signed_line(event, self._head, self._key)
        try:
            stream.seek(self._length)
            if stream.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self._durable:
                os.fsync(stream.fileno())
        except OSError:
            stream.truncate(self._length)  # what is not safe does not count, and nothing leaves
            raise
        self._head, self._length = head, self._length + len(line)
        return head


def canonical(content: Mapping[str, object]) -> bytes:
    """Return the one way in which an entry is written."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _signed_line(event: Event, before: Head, key: Ed25519PrivateKey) -> tuple[bytes, Head]:
    content: dict[str, object] = {
        "number": before.entries + 1,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **asdict(event),
        "previous": before.hash,
    }
    digest = hashlib.sha256(canonical(content)).hexdigest()
    signature = key.sign(PURPOSE + digest.encode()).hex()
    line = canonical({**content, "hash": digest, "signature": signature})
    return line + b"\n", Head(before.entries + 1, digest)


def _hash_in(line: bytes, path: Path) -> str:
    try:
        return str(json.loads(line)["hash"])
    except (ValueError, KeyError, TypeError):
        msg = f"the last line of {path} is not an entry: verify the log, and restore it."
        raise AuditError(msg) from None


@contextmanager
def _open_alone(path: Path, durable: bool) -> Iterator[FileIO]:
    """Give the file to one process at a time; the lock goes when it is closed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = durable and not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with FileIO(descriptor, "r+") as stream:
        if os.name == "posix":
            lock(descriptor, wait=True)
        if is_new:
            flush_folder(path.parent)
        yield stream
