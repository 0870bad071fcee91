"""Reading an audit log, and finding out whether it is as it was written."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from wardround.common.errors import RunError
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.files.json_lines import (
    BrokenLineError,
    ChainHead,
    canonical,
    from_line,
    split_lines,
)
from wardround.common.security.audit_log import EMPTY, LOG_FILE, PURPOSE, Event

_RECEIPT = "receipt.json"


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


def verify_log(folder: Path, key: Ed25519PublicKey, countersigned: ChainHead = EMPTY) -> ChainHead:
    """Check every entry, the chain and the signatures, and return the head.

    Args:
        countersigned: A head that somebody else kept: the log must hold it, and may have grown.
            What was cut off after it cannot be found.

    Raises:
        RunError: Says the first line that is wrong, and how.
    """
    path = folder / LOG_FILE
    lines, torn = split_lines(path.read_bytes() if path.exists() else b"")
    head, held = EMPTY, countersigned == EMPTY
    for number, line in enumerate(lines, start=1):
        try:
            _, stated = from_line(line, number, head.hash, partial(_check_signature, key))
        except BrokenLineError as error:
            raise RunError(_broken(path, number, str(error))) from None
        head = ChainHead(number, stated)
        held = held or head == countersigned
    if torn:
        raise RunError(_broken(path, len(lines) + 1, "is cut off"))
    if not held:
        msg = (
            f"{path} has {head.entries} entries and not the one that was countersigned as number "
            f"{countersigned.entries}: entries were removed or written anew; restore a copy of it."
        )
        raise RunError(msg)
    return head


def keep_receipt(folder: Path, countersigned: ChainHead) -> None:
    """Keep a head that the server has countersigned beside the log."""
    content = canonical({"entries": countersigned.entries, "hash": countersigned.hash})
    replace_file(folder / _RECEIPT, content, BY_UMASK, durable=False)


def read_receipt(folder: Path) -> ChainHead:
    """Return the head of :func:`keep_receipt`, that of an empty log if there is none.

    Raises:
        RunError: The receipt is damaged.
    """
    path = folder / _RECEIPT
    if not path.exists():
        return EMPTY
    try:
        content = json.loads(path.read_bytes())
        return ChainHead(int(content["entries"]), str(content["hash"]))
    except (ValueError, KeyError, TypeError):
        msg = f"{path} cannot be read: ask the server for the head it countersigned last."
        raise RunError(msg) from None


def _check_signature(key: Ed25519PublicKey, stated: str, signature: str) -> None:
    """Check that a hash was signed by a key.

    Raises:
        BrokenLineError: It was not, or the signature is written in another way.
    """
    fact = ""
    try:
        if bytes.fromhex(signature).hex() != signature:
            fact = "is not written as an entry is"
        key.verify(bytes.fromhex(signature), PURPOSE + stated.encode())
    except InvalidSignature:
        fact = fact or "is not signed by this site's key"
    except ValueError:
        fact = "is not an entry"
    if fact:
        raise BrokenLineError(fact)


def _broken(path: Path, number: int, fact: str) -> str:
    return f"line {number} of {path} {fact}: the log was damaged or changed; restore a copy of it."
