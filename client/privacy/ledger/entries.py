"""What a privacy ledger says: facts, each bound to the one before it by a hash.

A line is the canonical JSON of an entry: keys in order, no spaces, ASCII. Its hash is a SHA-256
over the rest of the line, in which the hash of the line before stands. A line that is not written
exactly so was not written by the ledger.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from wardround.common.errors import WardroundError

FORMAT = 1
NO_HASH = "0" * 64  # what the first entry follows


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
    """The charge of one answer, from before its training."""

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
    """The one answer of a reservation, from before it left.

    Attributes:
        reservation: The number of the reservation's entry.
    """

    reservation: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Committed:
    """The server has moved on: this answer will not be asked for again."""

    reservation: int


@dataclass(frozen=True, slots=True)
class Repaired:
    """The last line was unfinished.

    Attributes:
        dropped_bytes: What was taken away; 0 if only the end of the line was missing.
    """

    dropped_bytes: int


Fact = Opened | Admitted | Reserved | Released | Committed | Repaired

_KINDS: dict[str, type[Fact]] = {
    "opened": Opened,
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
        content = _sealed(self.number, self.time, self.fact, self.previous)
        return _canonical({**content, "hash": self.hash})


def entry_after(last: Entry | None, fact: Fact) -> Entry:
    """Return the entry of a fact that follows another entry, or begins a ledger."""
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    number, previous = _place_after(last)
    return Entry(number, time, fact, previous, _hash(_sealed(number, time, fact, previous)))


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
        content = json.loads(line)
        sealed = {key: value for key, value in content.items() if key != "hash"}
        place = (sealed["number"], sealed["previous"], content["hash"])
        intact = place == (number, previous, _hash(sealed)) and _canonical(content) == line
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        intact = False
    if not intact:
        msg = (
            f"line {number + 1} of the privacy ledger is not what was written there: put the last "
            "good copy of the ledger back. The site does not train until then."
        )
        raise LedgerError(msg)
    entry = _typed(content)
    if entry is None:
        msg = (
            f"line {number + 1} of the privacy ledger says what this version does not know: "
            "update wardround."
        )
        raise LedgerError(msg)
    return entry


def _typed(content: dict[str, Any]) -> Entry | None:
    """Return the entry in verified content; None if this version does not know what it says."""
    try:
        kind, said = _KINDS[content.pop("kind")], content.pop("fact")
        if any(type(said[field.name]) is not field.type for field in fields(kind)):
            return None
        return Entry(fact=kind(**said), **content)
    except (KeyError, TypeError):
        return None


def _place_after(last: Entry | None) -> tuple[int, str]:
    return (0, NO_HASH) if last is None else (last.number + 1, last.hash)


def _sealed(number: int, time: str, fact: Fact, previous: str) -> dict[str, Any]:
    """Return what the hash is over."""
    return {
        "fact": asdict(fact),
        "kind": _NAMES[type(fact)],
        "number": number,
        "previous": previous,
        "time": time,
    }


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(content)).hexdigest()


def _canonical(content: dict[str, Any]) -> bytes:
    text = json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode()
