"""A roster: who takes part in one masking, with which keys, and how many must stay to the end."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from wardround.common.privacy.secure_aggregation.canonical import Reader, Writer
from wardround.common.privacy.secure_aggregation.context import (
    MOST_SITES,
    SMALLEST_ROSTER,
    Context,
    least_threshold,
)
from wardround.common.privacy.secure_aggregation.messages import (
    Advertisement,
    Identities,
    read_signed,
)
from wardround.common.privacy.secure_aggregation.refusals import Refusal, refuse

_LONGEST_ADVERTISEMENT = 1_000


@dataclass(frozen=True, slots=True)
class Roster:
    """The advertisements that a server passes on, and its threshold.

    Attributes:
        members: In the order of the sites' names; the i-th holds the shares of the point i + 1.
        signed: Their advertisements as they were signed.
    """

    threshold: int
    members: tuple[Advertisement, ...]
    signed: tuple[bytes, ...]

    @classmethod
    def of(cls, threshold: int, signed: tuple[bytes, ...], identities: Identities) -> "Roster":
        """Return the roster of signed advertisements.

        Raises:
            MaskingError: One is not signed by the site that it names.
        """
        read = [(read_signed(Advertisement, one, identities), one) for one in signed]
        read.sort(key=lambda pair: pair[0].site)
        return cls(threshold, tuple(m for m, _ in read), tuple(s for _, s in read))

    @classmethod
    def from_bytes(cls, given: bytes, identities: Identities) -> "Roster":
        """Read a roster, as a site does that trusts nobody but the others' identities.

        Raises:
            MaskingError: It cannot be read, or one of its parts is not signed by its site.
        """
        reader = Reader(given)
        threshold, count = reader.whole(MOST_SITES), reader.whole(MOST_SITES)
        signed = tuple(reader.data(_LONGEST_ADVERTISEMENT) for _ in range(count))
        reader.end()
        return cls.of(threshold, signed, identities)

    def to_bytes(self) -> bytes:
        """Return it as a message."""
        writer = Writer().whole(self.threshold).whole(len(self.signed))
        for one in self.signed:
            writer.data(one)
        return writer.done()

    @property
    def digest(self) -> bytes:
        """SHA-256 of all of it."""
        return hashlib.sha256(self.to_bytes()).digest()

    @property
    def names(self) -> tuple[str, ...]:
        """The sites, in order."""
        return tuple(member.site for member in self.members)

    def point(self, site: str) -> int:
        """Return where the polynomials are read for a site, from 1."""
        return self.names.index(site) + 1

    def member(self, site: str) -> Advertisement:
        """Return what a site has advertised.

        Raises:
            MaskingError: It is not of the roster.
        """
        if site not in self.names:
            refuse(Refusal.UNKNOWN_SITE, f"{site!r:.80} is not of the roster")
        return self.members[self.names.index(site)]

    def groups(self, coins: Mapping[str, bytes], count: int) -> tuple[tuple[str, ...], ...]:
        """Return the groups of a round, whose sizes differ by one at most.

        They follow from the coins of all sites, each of which was signed by its hash before anybody
        told one: nobody can choose them. Who could leave a coin out could choose among groupings,
        so none may be missing.

        Args:
            coins: By site; not read where there is one group.

        Raises:
            MaskingError: A coin is missing, or another than the one that its site has signed.
        """
        if count == 1:
            return (self.names,)
        writer = Writer().text("groups").data(self.digest)
        for member in self.members:
            coin = coins.get(member.site, b"")
            if hashlib.sha256(coin).digest() != member.coin_hash:
                refuse(Refusal.FALSE_COIN, f"the coin of {member.site} is missing, or is another")
            writer.data(coin)
        seed = hashlib.sha256(writer.done()).digest()
        order = sorted(self.names, key=lambda name: hashlib.sha256(seed + name.encode()).digest())
        return tuple(tuple(sorted(order[first::count])) for first in range(count))

    def require_sound(self, context: Context, smallest: int, most: int) -> None:
        """Check all that holds of a roster whoever looks at it.

        Args:
            smallest: How many sites the reader asks for; never fewer than 3.
            most: How many sites' sum fits into a word.

        Raises:
            MaskingError: It is too small or too large, its threshold too low, two sites have one
                name or key, or one advertised for something else.
        """
        count, needed = len(self.members), max(smallest, SMALLEST_ROSTER)
        if len(set(self.names)) != count:
            refuse(Refusal.REPEATED_KEY, "the roster names a site twice")
        if count < needed:
            refuse(Refusal.SMALL_ROSTER, f"the roster has {count} sites and needs {needed}")
        if count > most:
            refuse(Refusal.LARGE_ROSTER, f"the roster has {count} sites, and {most} are added up")
        if not least_threshold(count) <= self.threshold <= count:
            refuse(
                Refusal.LOW_THRESHOLD,
                f"the threshold is {self.threshold} of {count} sites, and must be at least "
                f"{least_threshold(count)}",
            )
        for member in self.members:
            context.require_same(member.context, member.site)
        keys = [key for one in self.members for key in (one.mask_key, one.channel_key)]
        if len(set(keys)) != len(keys):
            refuse(Refusal.REPEATED_KEY, "two keys of the roster are the same")
