"""What one masking is about; every key, signature and hash of it covers all of this."""

import hashlib
import re
from dataclasses import dataclass
from typing import NoReturn

from wardround.common.privacy.secure_aggregation.canonical import Reader, Writer
from wardround.common.privacy.secure_aggregation.fixed_point import Grid
from wardround.common.privacy.secure_aggregation.refusals import Refusal, refuse

HASH_BYTES = 32
SMALLEST_ROSTER = 3  # of two, each learns the other's from the sum
MOST_ROUNDS, MOST_SITES = 2**31, 1024
MOST_ATTEMPTS = 3  # at a round of which nothing was masked
_STUDY, _RUN = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{32}")


def least_threshold(sites: int) -> int:
    """Return how many of a roster must stay to the end: ``floor(2n / 3) + 1``.

    Two sets of so many sites have more than a third of all in common. So a server that has less
    than a third of the sites on its side cannot have two sets of survivors agreed on.
    """
    return 2 * sites // 3 + 1


@dataclass(frozen=True, slots=True)
class Configuration:
    """What all sites must do alike.

    Attributes:
        length: Of the masked vector, in words.
        grid: Which whole numbers stand for which numbers.
        layout: SHA-256 of what stands where in the vector.
        smallest_roster: With fewer sites nothing is masked, at least 3.
        groups: How many sums a round has, each of the sites of one group; mostly one.
        smallest_group: Of a group with fewer sites nothing is unmasked, at least 3.
    """

    length: int
    grid: Grid
    layout: bytes
    smallest_roster: int = SMALLEST_ROSTER
    groups: int = 1
    smallest_group: int = SMALLEST_ROSTER

    @property
    def digest(self) -> bytes:
        """SHA-256 of all of it."""
        writer = self.grid.write(Writer().whole(self.length)).data(self.layout)
        writer.whole(self.smallest_roster).whole(self.groups).whole(self.smallest_group)
        return hashlib.sha256(writer.done()).digest()


@dataclass(frozen=True, slots=True)
class Context:
    """One try at masking one round.

    Attributes:
        study: Its digest, 64 hexadecimal digits.
        run: 32 hexadecimal digits.
        round: From 1.
        attempt: At the round, from 0.
        configuration: Digest of the configuration.
        model: SHA-256 of the model that the round starts from, as the site received it.
    """

    study: str
    run: str
    round: int
    attempt: int
    configuration: bytes
    model: bytes

    def __post_init__(self) -> None:
        """Check its form.

        Raises:
            MaskingError: It is none.
        """
        named = _STUDY.fullmatch(self.study) and _RUN.fullmatch(self.run)
        counted = 1 <= self.round <= MOST_ROUNDS and 0 <= self.attempt <= MOST_ROUNDS
        hashed = len(self.configuration) == len(self.model) == HASH_BYTES
        if not (named and counted and hashed):
            refuse(Refusal.MALFORMED, "a message does not say which round of which study it is of")

    def write(self, writer: Writer) -> Writer:
        """Add it to canonical bytes."""
        writer.text(self.study).text(self.run).whole(self.round).whole(self.attempt)
        return writer.data(self.configuration).data(self.model)

    @classmethod
    def read(cls, reader: Reader) -> "Context":
        """Read it from canonical bytes.

        Raises:
            MaskingError: It is not there.
        """
        return cls(
            reader.text(64),
            reader.text(32),
            reader.whole(MOST_ROUNDS),
            reader.whole(MOST_ROUNDS),
            reader.exactly(HASH_BYTES),
            reader.exactly(HASH_BYTES),
        )

    def require_same(self, other: "Context", whose: str) -> None:
        """Check that a message is about the same.

        Args:
            whose: Who sent it, for the log.

        Raises:
            MaskingError: It is not; the refusal names in what they differ.
        """
        for found, ours, refusal, what in (
            (other.study, self.study, Refusal.OTHER_STUDY, "another study"),
            (other.run, self.run, Refusal.OTHER_RUN, "another run"),
            (other.round, self.round, Refusal.OTHER_ROUND, "another round"),
            (other.attempt, self.attempt, Refusal.OTHER_ATTEMPT, "another attempt"),
            (
                other.configuration,
                self.configuration,
                Refusal.CHANGED_CONFIGURATION,
                "another configuration",
            ),
            (other.model, self.model, Refusal.TWO_MODELS, "another model than this site got"),
        ):
            if found != ours:
                refuse(_finer(refusal, self, other), f"the message of {whose} is of {what}")


def _finer(refusal: Refusal, ours: Context, theirs: Context) -> Refusal:
    """Return the name of what was tried: what is older was sent before."""
    if refusal is Refusal.OTHER_ROUND and theirs.round < ours.round:
        return Refusal.REPLAYED_ROUND
    if refusal is Refusal.OTHER_ATTEMPT and theirs.attempt < ours.attempt:
        return Refusal.OLD_ATTEMPT
    return refusal


def refuse_repeated(ours: Context, asked: Context) -> NoReturn:
    """Refuse to open a round or an attempt that is not later than the last.

    Raises:
        MaskingError: Always.
    """
    ended = asked.round < ours.round
    refuse(
        Refusal.REPLAYED_ROUND if ended else Refusal.OLD_ATTEMPT,
        f"round {asked.round}, attempt {asked.attempt} was asked for after round {ours.round}, "
        f"attempt {ours.attempt}",
    )
