"""The file of a privacy ledger: one writer, appended to, on the disk before it counts.

Its lines are verified when it is read: each follows the one before it, and only the last may be
torn. A line that was being written when the power failed is a beginning without an end, or a whole
line whose end is missing. Anything else that does not fit was edited, and nothing is repaired.
"""

import json
import os
import time
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from wardround.client.privacy.ledger.entries import (
    Entry,
    Fact,
    LedgerError,
    Opened,
    Repaired,
    entry_after,
    read_entry,
)
from wardround.client.site.folder import open_site
from wardround.common.files.atomic import flush_folder, make_private_folder, open_or_make
from wardround.common.files.json_lines import append_line, split_lines
from wardround.common.files.lock import open_lock
from wardround.common.runtime.system.files import lock

LEDGER_FOLDER = "ledger"  # of a site's folder, where site.toml names no other
LEDGER_FILE = "ledger.jsonl"
_LOCK_FILE = "lock"
_LOOK_SECONDS = 0.05
_OPENING = os.O_RDWR | os.O_APPEND
_EDITED = (
    "the end of the privacy ledger was edited: put the last good copy of the ledger back. "
    "The site does not train until then."
)


@dataclass(frozen=True, slots=True)
class Chain:
    """The verified content of a ledger file.

    Attributes:
        entries: In order; a last line that lacks only its end is among them.
        torn: What follows the last complete line, to be cut off; empty as a rule.
        unended: Whether the last entry's line has no end yet.
    """

    entries: tuple[Entry, ...]
    torn: bytes = b""
    unended: bool = False


def read_chain(content: bytes) -> Chain:
    """Verify the content of a ledger file.

    Raises:
        LedgerError: A line was changed, taken away, added or moved.
    """
    lines, tail = split_lines(content)
    entries: list[Entry] = []
    for line in lines:
        entries.append(read_entry(line, entries[-1] if entries else None))
    # A file system may fill with zeros what it had no time to write.
    text = tail.rstrip(b"\0")
    unended = _is_whole(text)
    if unended:
        entries.append(read_entry(text, entries[-1] if entries else None))
    if entries and not isinstance(entries[0].fact, Opened):
        raise LedgerError(_EDITED)
    return Chain(tuple(entries), tail.removeprefix(text) if unended else tail, unended)


def check_held(entries: Sequence[Entry], expected: int, head: str = "") -> None:
    """Check that a ledger holds what the server was once told of it.

    Args:
        expected: The number of entries that the server remembers; 0 if it knows of none.
        head: The hash of the last of those; empty if it remembers none.

    Raises:
        LedgerError: The ledger is behind, or another one.
    """
    if expected > len(entries):
        msg = (
            f"the privacy ledger has {len(entries)} entries and the server has seen {expected}: "
            "it was deleted, or an old copy was put back. Put the newest copy back. "
            "The site does not train until then."
        )
        raise LedgerError(msg)
    if expected > 0 and head and entries[expected - 1].hash != head:
        msg = (
            f"line {expected} of the privacy ledger is not the one that the server has seen: "
            "this is another ledger. Put the site's own back. The site does not train until then."
        )
        raise LedgerError(msg)


def _is_whole(text: bytes) -> bool:
    """Return whether a last line without an end holds a whole entry, and nothing more."""
    decoded = text.decode("ascii", errors="replace")
    try:
        _, end = json.JSONDecoder().raw_decode(decoded)
    except (ValueError, RecursionError):
        return False
    if end < len(decoded):
        raise LedgerError(_EDITED)
    return True


class LedgerFile:
    """The open file of a ledger; while it is open no other process can open it.

    Args:
        folder: Where the ledger lies; made if it is absent.
        durable: Whether an entry waits for the disk. A simulation does without: what a killed
            process wrote is safe with the kernel.
        patience_seconds: How long it is waited for another process that has it open.

    Raises:
        LedgerError: Another process has it open, it was edited, or it cannot be written.
    """

    def __init__(self, folder: Path, durable: bool = True, patience_seconds: float = 0.0) -> None:
        self.path = folder / LEDGER_FILE
        self._durable = durable
        self._process = os.getpid()
        held = ExitStack()
        self._close = weakref.finalize(self, held.close)
        try:
            make_private_folder(folder)
            held.callback(os.close, _lock(folder, patience_seconds))
            self._descriptor = open_or_make(self.path, _OPENING)
            held.callback(os.close, self._descriptor)
            if durable:
                flush_folder(folder)
                flush_folder(folder.parent)
            chain = read_chain(_read_all(self._descriptor))
            self.entries = list(chain.entries)
            self._repair(chain)
        except OSError as error:
            self.close()
            raise LedgerError(_unusable(self.path, error)) from None
        except BaseException:
            self.close()
            raise

    def append(self, fact: Fact) -> Entry:
        """Write a fact; it counts when this returns.

        Raises:
            LedgerError: It cannot be written, the file was changed by another, or it is closed.
        """
        self._check_own()
        entry = entry_after(self.entries[-1] if self.entries else None, fact)
        line = entry.line() + b"\n"
        try:
            self._write(line)
        except OSError as error:
            raise LedgerError(_unusable(self.path, error)) from None
        self.entries.append(entry)
        return entry

    def close(self) -> None:
        """Let another process open the ledger."""
        self._close()

    def _repair(self, chain: Chain) -> None:
        size = os.fstat(self._descriptor).st_size
        self._length = size - len(chain.torn)
        if chain.torn:
            os.ftruncate(self._descriptor, self._length)
            if self._durable:
                os.fsync(self._descriptor)
        if chain.unended:
            self._write(b"\n")
        if (chain.torn or chain.unended) and self.entries:
            self.append(Repaired(len(chain.torn)))

    def _write(self, line: bytes) -> None:
        append_line(self._descriptor, line, self._length, self._durable)
        self._length += len(line)

    def _check_own(self) -> None:
        """Check that the file is still the one that was verified."""
        if not self._close.alive or os.getpid() != self._process:
            msg = f"the ledger {self.path} is not open in this process: open it again."
            raise LedgerError(msg)
        found = os.fstat(self._descriptor)
        if found.st_size != self._length or not found.st_nlink:
            msg = (
                f"the ledger {self.path} was changed while it was open: find out by what, and "
                "verify it before the site is started again."
            )
            raise LedgerError(msg)


def find_ledger_folder(site_folder: Path) -> Path:
    """Return where a site's ledger lies.

    A ledger belongs to a data set. A hospital that takes part in two consortia has two site
    folders, and ``ledger`` in their ``site.toml`` names the one ledger that both charge.

    Raises:
        DataError: ``site.toml`` says something unknown.
        LedgerError: The site spent from a ledger of its own before it was given another.
    """
    own = site_folder / LEDGER_FOLDER
    if not (site_folder / "site.toml").exists():
        return own
    named = open_site(site_folder).ledger_folder
    if named != own.resolve() and (own / LEDGER_FILE).exists():
        msg = (
            f"{site_folder} has a ledger of its own beside {named}, which its site.toml names, and "
            "what it holds would be forgotten: move the own one there, if nothing is there yet. "
            "Otherwise lower lifetime_epsilon in policy.toml by what the own one has spent, and "
            "move it away. The site does not train until then."
        )
        raise LedgerError(msg)
    return named


def read_ledger(site_folder: Path) -> Chain:
    """Return the verified ledger of a site, as it is now, without opening it for writing.

    Raises:
        LedgerError: There is none, it was edited, or it cannot be read.
    """
    path = find_ledger_folder(site_folder) / LEDGER_FILE
    try:
        chain = read_chain(path.read_bytes())
    except FileNotFoundError:
        chain = Chain(())
    except OSError as error:
        msg = f"cannot read {path} ({error.strerror}): use the account that the site runs under."
        raise LedgerError(msg) from None
    if not chain.entries:
        msg = (
            f"{site_folder} has no privacy ledger: give the folder of a site that has taken part "
            "in a private study."
        )
        raise LedgerError(msg)
    return chain


def _lock(folder: Path, patience_seconds: float) -> int:
    """Take a ledger's lock; the kernel gives it back when the process ends, however it ends."""
    descriptor, until = open_lock(folder / _LOCK_FILE), time.monotonic() + patience_seconds
    try:
        while not (held := lock(descriptor, wait=False)) and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)
        if not held:
            owner = os.read(descriptor, 20).decode(errors="replace").strip() or "unknown"
            msg = (
                f"the ledger in {folder} is in use by process {owner}: a site has one ledger and "
                "one process that writes it. Stop the other, or wait until it ends."
            )
            raise LedgerError(msg)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(os.dup(descriptor), "rb") as stream:
        stream.seek(0)
        return stream.read()


def _unusable(path: Path, error: OSError) -> str:
    return (
        f"cannot write the ledger {path} ({error.strerror}): make room, or make it writable for "
        "this account. The site does not train until then."
    )
