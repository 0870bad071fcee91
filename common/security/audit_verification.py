"""Reading an audit log, and finding out whether it is as it was written."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from wardround.common.errors import RunError
from wardround.common.files.atomic import make_private_folder, open_or_make
from wardround.common.files.json_lines import (
    BrokenLineError,
    ChainHead,
    append_line,
    from_line,
    split_lines,
)
from wardround.common.runtime.system.files import lock
from wardround.common.security.audit_log import EMPTY, LOG_FILE, PURPOSE, Event
from wardround.common.security.audit_receipt import (
    Receipt,
    mark_of,
    receipt_from_json,
    receipt_to_json,
)

RECEIPTS_FILE = "receipts.jsonl"
_LAST_BYTES = 4096  # hold the last receipt, which has under 1,000


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log: what happened, and when by the site's clock."""

    number: int
    time: str
    event: Event
    hash: str


def read_log(folder: Path) -> Iterator[Entry]:
    """Yield the entries of a log as they stand, unverified; an absent log has none.

    A last line that is torn, or still being written, is left out.

    Raises:
        RunError: A line is not an entry.
    """
    path = folder / LOG_FILE
    if not path.exists():
        return
    lines, _ = split_lines(path.read_bytes())
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
            said = {field.name: content[field.name] for field in fields(Event)}
            yield Entry(content["number"], content["time"], Event(**said), content["hash"])
        except (ValueError, KeyError, TypeError):
            raise RunError(_broken(path, number, "is not an entry")) from None


def verify_log(
    folder: Path,
    key: Ed25519PublicKey,
    countersigned: ChainHead = EMPTY,
    receipts: Sequence[Receipt] = (),
) -> ChainHead:
    """Check every entry, the chain and the signatures, and return the head.

    Args:
        countersigned: A head that somebody else kept: the log must hold it, and may have grown.
            What was cut off after it cannot be found.
        receipts: Of the server, once they were checked: the log must hold what each is for.

    Raises:
        RunError: Says the first line that is wrong, and how.
    """
    path = folder / LOG_FILE
    lines, torn = split_lines(path.read_bytes() if path.exists() else b"")
    head, held = EMPTY, countersigned == EMPTY
    seal, open_receipts = _Seal(key), {(r.report.entries, r.report.mark): r for r in receipts}
    for number, line in enumerate(lines, start=1):
        try:
            _, stated = from_line(line, number, head.hash, seal.check)
        except BrokenLineError as error:
            raise RunError(_broken(path, number, str(error))) from None
        head = ChainHead(number, stated)
        held = held or head == countersigned
        open_receipts.pop((number, seal.mark), None)
    if torn:
        raise RunError(_broken(path, len(lines) + 1, "is cut off"))
    if not held:
        msg = (
            f"{path} has {head.entries} entries and not the one that was countersigned as number "
            f"{countersigned.entries}: entries were removed or written anew; restore a copy of it."
        )
        raise RunError(msg)
    _refuse_cut_log(path, head, list(open_receipts.values()))
    return head


def _refuse_cut_log(path: Path, head: ChainHead, unmet: Sequence[Receipt]) -> None:
    """Refuse a log that does not hold what the server has a receipt for.

    Raises:
        RunError: It does not.
    """
    if not unmet:
        return
    newest = max(unmet, key=lambda receipt: receipt.report.entries)
    when = datetime.fromtimestamp(newest.time, UTC)
    msg = (
        f"{path} has {head.entries} entries, and the server countersigned on {when:%Y-%m-%d %H:%M} "
        f"UTC another log, of {newest.report.entries}: its end was cut off, or it was written "
        "anew. Restore a copy of it, and find out who changed it."
    )
    raise RunError(msg)


def keep_receipt(folder: Path, receipt: Receipt) -> None:
    """Keep a receipt of the server beside the log, if it says more than the last one there.

    None is ever replaced: a log that was cut and has grown since is not what the earlier ones say.
    One of fewer entries than the last is an old one.

    Raises:
        RunError: The last line of the file is no receipt.
        OSError: The file cannot be written.
    """
    path = folder / RECEIPTS_FILE
    make_private_folder(folder)
    descriptor = open_or_make(path, os.O_RDWR)
    with os.fdopen(descriptor, "r+b") as stream:
        lock(descriptor, wait=True)
        length = os.fstat(descriptor).st_size
        stream.seek(max(length - _LAST_BYTES, 0))
        *lines, torn = stream.read().split(b"\n")
        last = _receipt(lines[-1], path).report if lines else None
        new = receipt.report
        if last is not None and (new.entries < last.entries or new == last):
            return
        line = receipt_to_json(receipt).encode() + b"\n"
        stream.truncate(length - len(torn))
        append_line(descriptor, line, length - len(torn), durable=True)


def read_receipts(folder: Path) -> tuple[Receipt, ...]:
    """Return the receipts that are kept beside a log, the newest last; none if there is no file.

    Raises:
        RunError: A line is no receipt.
    """
    path = folder / RECEIPTS_FILE
    lines, _ = split_lines(path.read_bytes() if path.exists() else b"")
    return tuple(_receipt(line, path) for line in lines)


def check_receipts(
    receipts: Sequence[Receipt],
    site: str,
    key: Ed25519PublicKey,
    authority: x509.Certificate | None,
    only_its_own: bool = False,
) -> None:
    """Check that receipts are for a site's log, and of the server that it has joined.

    Args:
        authority: The server's CA, as it was pinned when the site joined.
        only_its_own: Whether receipts of another server, which the site had joined before, are
            refused. Else they are taken as they are: they were checked when they came.

    Raises:
        RunError: One was not signed by those who should have.
    """
    name = "" if authority is None else authority.fingerprint(hashes.SHA256()).hex()
    public = None if authority is None else authority.public_key()
    for receipt in receipts:
        is_right = receipt.site == site and receipt.report.is_signed_by(key)
        if receipt.authority == name and isinstance(public, ec.EllipticCurvePublicKey):
            is_right = is_right and receipt.is_signed_by(public)
        elif only_its_own:
            is_right = False
        if not is_right:
            msg = (
                f"a receipt for {receipt.report.entries} entries was not signed by the server or "
                "not for this site: it is refused. A copy of the audit folder may be needed."
            )
            raise RunError(msg)


def _receipt(line: bytes, path: Path) -> Receipt:
    try:
        return receipt_from_json(line)
    except ValueError:
        msg = f"{path} holds a line that is no receipt: it was damaged or changed; restore a copy."
        raise RunError(msg) from None


class _Seal:
    """Checks signatures, and remembers the mark of the last one."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key, self.mark = key, ""

    def check(self, stated: str, signature: str) -> None:
        """Check that a hash was signed by the key.

        Raises:
            BrokenLineError: It was not, or the signature is written in another way.
        """
        fact = ""
        try:
            if bytes.fromhex(signature).hex() != signature:
                fact = "is not written as an entry is"
            self._key.verify(bytes.fromhex(signature), PURPOSE + stated.encode())
            self.mark = mark_of(signature)
        except InvalidSignature:
            fact = fact or "is not signed by this site's key"
        except ValueError:
            fact = "is not an entry"
        if fact:
            raise BrokenLineError(fact)


def _broken(path: Path, number: int, fact: str) -> str:
    return f"line {number} of {path} {fact}: the log was damaged or changed; restore a copy of it."
