"""What a privacy ledger says: facts, each bound to the one before it by a hash.

A line is one of :mod:`wardround.common.files.json_lines`, not signed and counted from 0. One that
is not written exactly so was not written by the ledger.
"""

from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from wardround.common.errors import WardroundError
from wardround.common.files.json_lines import (
    NO_HASH,
    BrokenLineError,
    canonical,
    from_line,
    to_line,
)

FORMAT = 1


class LedgerError(WardroundError):
    """The ledger cannot vouch for what was spent: the site does not train."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The first entry.

    Attributes:
        ledger: Drawn at random, so that no two ledgers have a hash in common.
    """

    ledger: str
    wardround: str
    format: int


@dataclass(frozen=True, slots=True)
class Ordered:
    """Whose orders a run's are: one ledger may answer several servers.

    Attributes:
        server: As :func:`wardround.client.site.folder.server_of` names it.
    """

    run: str
    server: str


@dataclass(frozen=True, slots=True)
class Admitted:
    """A study whose planned spend fitted, with the caps of that day."""

    study: str
    run: str
    dataset: str
    snapshot: str
    sampling_rate: float
    noise_multiplier: float
    steps: int
    clip_norm: float
    lifetime_epsilon: float
    lifetime_delta: float
    study_epsilon: float


@dataclass(frozen=True, slots=True)
class Reserved:
    """The charge of one reply, from before its training."""

    study: str
    run: str
    dataset: str
    snapshot: str
    round: int
    attempt: int
    sampling_rate: float
    noise_multiplier: float
    steps: int


@dataclass(frozen=True, slots=True)
class Released:
    """The one reply of a reservation, from before it left.

    Attributes:
        reservation: The number of the reservation's entry.
    """

    reservation: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Committed:
    """The server has moved on: this reply will not be asked for again."""

    reservation: int


@dataclass(frozen=True, slots=True)
class Repaired:
    """The last line was unfinished.

    Attributes:
        dropped_bytes: What was taken away; 0 if only the end of the line was missing.
    """

    dropped_bytes: int


Fact = Opened | Ordered | Admitted | Reserved | Released | Committed | Repaired

_KINDS: dict[str, type[Fact]] = {
    "opened": Opened,
    "ordered": Ordered,
    "admitted": Admitted,
    "reserved": Reserved,
    "released": Released,
    "committed": Committed,
    "repaired": Repaired,
}
_NAMES = {fact: name for name, fact in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """A fact at its place in the chain.

    Attributes:
        number: Its place, from 0.
        time: Coordinated universal time to the second; nothing depends on it.
        previous: The hash of the entry before it.
        hash: SHA-256 over everything else in the entry, 64 hexadecimal digits.
    """

    number: int
    time: str
    fact: Fact
    previous: str
    hash: str

    def line(self) -> bytes:
        """Return the entry as it stands in the file, without the end of the line."""
        place = {"number": self.number, "previous": self.previous, "hash": self.hash}
        return canonical({**_content(self.time, self.fact), **place})


def entry_after(last: Entry | None, fact: Fact) -> Entry:
    """Return the entry of a fact that follows another entry, or begins a ledger."""
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    number, previous = _place_after(last)
    _, stated = to_line(_content(time, fact), number, previous)
    return Entry(number, time, fact, previous, stated)


def read_entry(line: bytes, last: Entry | None) -> Entry:
    """Return the entry in a line.

    Args:
        last: The entry of the line before; None for the first line.

    Raises:
        LedgerError: The line was edited, is not the one that was written after the line before, or
            was written by a newer version.
    """
    number, previous = _place_after(last)
    try:
        content, stated = from_line(line, number, previous)
    except BrokenLineError:
        msg = (
            f"line {number + 1} of the privacy ledger is not what was written there: put the last "
            "good copy of the ledger back. The site does not train until then."
        )
        raise LedgerError(msg) from None
    entry = _typed(content, stated)
    if entry is None:
        msg = (
            f"line {number + 1} of the privacy ledger says what this version does not know: "
            "update wardround."
        )
        raise LedgerError(msg)
    return entry


def _typed(content: dict[str, Any], stated: str) -> Entry | None:
    """Return the entry in verified content; None if this version does not know what it says."""
    try:
        kind, said = _KINDS[content.pop("kind")], content.pop("fact")
        if any(type(said[field.name]) is not field.type for field in fields(kind)):
            return None
        return Entry(fact=kind(**said), hash=stated, **content)
    except (KeyError, TypeError):
        return None


def _place_after(last: Entry | None) -> tuple[int, str]:
    return (0, NO_HASH) if last is None else (last.number + 1, last.hash)


def _content(time: str, fact: Fact) -> dict[str, Any]:
    """Return what a line says beside its place in the chain."""
    return {"fact": asdict(fact), "kind": _NAMES[type(fact)], "time": time}
