"""The file of a privacy ledger: one writer, appended to, on the disk before it counts."""

import os
import weakref
from contextlib import ExitStack
from pathlib import Path

from wardround.client.privacy.ledger.chain import Chain, read_chain
from wardround.client.privacy.ledger.entries import (
    Entry,
    Fact,
    LedgerError,
    Repaired,
    entry_after,
)
from wardround.common.files.atomic import flush_folder
from wardround.common.files.json_lines import append_line
from wardround.common.files.lock import lock, open_lock

LEDGER_FOLDER = "ledger"  # of a site's folder
LEDGER_FILE = "ledger.jsonl"
_LOCK_FILE = "lock"
_OPENING = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


class LedgerFile:
    """The open file of a ledger; while it is open no other process can open it.

    Args:
        folder: Where the ledger lies; made if it is absent.
        durable: Whether an entry waits for the disk. A simulation does without: what a killed
            process wrote is safe with the kernel.

    Raises:
        LedgerError: Another process has it open, it was edited, or it cannot be written.
    """

    def __init__(self, folder: Path, durable: bool = True) -> None:
        self.path = folder / LEDGER_FILE
        self._durable = durable
        self._process = os.getpid()
        held = ExitStack()
        self._close = weakref.finalize(self, held.close)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            held.callback(os.close, _lock(folder))
            self._descriptor = os.open(self.path, _OPENING, 0o600)
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


def read_ledger(site_folder: Path) -> Chain:
    """Return the verified ledger of a site, as it is now, without opening it for writing.

    Raises:
        LedgerError: There is none, it was edited, or it cannot be read.
    """
    path = site_folder / LEDGER_FOLDER / LEDGER_FILE
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


def _lock(folder: Path) -> int:
    """Take a ledger's lock; the kernel gives it back when the process ends, however it ends."""
    descriptor = open_lock(folder / _LOCK_FILE)
    try:
        if not lock(descriptor, wait=False):
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
