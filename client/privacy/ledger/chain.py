"""The lines of a ledger, verified: each follows the one before it, and only the last may be torn.

A line that was being written when the power failed is a beginning without an end, or a whole line
whose end is missing. Anything else that does not fit was edited, and nothing is repaired.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from wardround.client.privacy.ledger.entries import Entry, LedgerError, Opened, read_entry
from wardround.common.files.json_lines import split_lines

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
