"""A site's audit log: one line an entry, each chained to the one before and signed.

A line is one of :mod:`wardround.common.files.json_lines`, signed by the site's key, so that nobody
else can write the chain anew, and counted from 1. What a chain cannot show is that its end was cut
off: for that somebody else must know how long it was. A server signs receipts for that
(:mod:`wardround.common.security.audit_receipt`); for anybody else a :class:`ChainHead` is enough.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from wardround.common.errors import AuditError
from wardround.common.files.atomic import flush_folder, make_folder, open_or_make
from wardround.common.files.json_lines import NO_HASH, ChainHead, append_line, split_lines, to_line
from wardround.common.runtime.system.files import lock

if TYPE_CHECKING:
    from wardround.common.security.audit_receipt import AuditReport

LOG_FILE = "log.jsonl"
PURPOSE = b"wardround audit 1\n"  # a signature for this is none for anything else


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What an entry says.

    Attributes:
        kind: ``site_info``, ``update``, ``evaluation``, ``statistics``, ``pack``, ``placements``,
            ``canary``, ``carry``, ``refusal``, ``decision``, ``labels``, ``corrections``,
            ``correction``, ``review``, ``monitoring``, ``import``, ``withdrawal-site``,
            ``withdrawal-patients``, ``peer`` or ``repair``.
        verdict: ``allow``, or ``deny`` and the rules or the fault, in fixed words; of a peer what
            was done.
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


EMPTY = ChainHead(0, NO_HASH)


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
        self._signature = ""  # of the head
        self._length = 0

    def report(self) -> "AuditReport | None":
        """Return what the server is told of the log as it is now; None while it is empty.

        Raises:
            AuditError: It cannot be read, or its last line is not an entry.
        """
        from wardround.common.security.audit_receipt import mark_of, sign_report

        try:
            with _open_alone(self._path, self._durable) as stream:
                self._catch_up(stream)
        except OSError as error:
            raise self._unusable(error) from None
        entries = self._head.entries
        return sign_report(self._key, entries, mark_of(self._signature)) if entries else None

    def append(self, event: Event) -> ChainHead:
        """Write an entry and return the head that ends with it.

        Raises:
            AuditError: The log cannot be written, or its last line is not an entry.
        """
        try:
            with _open_alone(self._path, self._durable) as stream:
                self._catch_up(stream)
                return self._write(stream, event)
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> AuditError:
        return AuditError(
            f"cannot write the audit log {self._path} ({error.strerror}): make room for it."
        )

    def _catch_up(self, stream: FileIO) -> None:
        """Learn the head from the file, where it is not as this process left it."""
        length = os.fstat(stream.fileno()).st_size
        if length == self._length:
            return
        stream.seek(0)
        lines, torn = split_lines(stream.readall())
        self._head, self._signature = _head_of(lines, self._path)
        self._length = length - len(torn)
        if torn:  # a process was killed while it wrote: nothing has left on the strength of it
            stream.truncate(self._length)
            self._write(stream, Event(kind="repair", bytes=len(torn)))

    def _write(self, stream: FileIO, event: Event) -> ChainHead:
        line, head, signature = _signed_line(event, self._head, self._key)
        append_line(stream.fileno(), line, self._length, self._durable)
        self._head, self._signature = head, signature
        self._length += len(line)
        return head


def _signed_line(
    event: Event, before: ChainHead, key: Ed25519PrivateKey
) -> tuple[bytes, ChainHead, str]:
    number, signatures = before.entries + 1, list[str]()
    content = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **asdict(event)}

    def sign(stated: str) -> str:
        signatures.append(key.sign(PURPOSE + stated.encode()).hex())
        return signatures[-1]

    line, stated = to_line(content, number, before.hash, sign)
    return line + b"\n", ChainHead(number, stated), signatures[-1]


def _head_of(lines: list[bytes], path: Path) -> tuple[ChainHead, str]:
    """Return the head of a log, and the signature of its last entry."""
    if not lines:
        return EMPTY, ""
    try:
        last = json.loads(lines[-1])
        return ChainHead(len(lines), str(last["hash"])), str(last["signature"])
    except (ValueError, KeyError, TypeError):
        msg = f"the last line of {path} is not an entry: verify the log, and restore it."
        raise AuditError(msg) from None


@contextmanager
def _open_alone(path: Path, durable: bool) -> Iterator[FileIO]:
    """Give the file to one process at a time; the lock goes when it is closed."""
    make_folder(path.parent)
    is_new = durable and not path.exists()
    descriptor = open_or_make(path, os.O_RDWR)
    with FileIO(descriptor, "r+") as stream:
        lock(descriptor, wait=True)
        if is_new:
            flush_folder(path.parent)
        yield stream
