"""What a site keeps of one attempt at one round: on its own disk, and nowhere else."""

import hashlib
import os
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from wardround.common.privacy.secure_aggregation.canonical import Reader, Writer
from wardround.common.privacy.secure_aggregation.context import (
    HASH_BYTES,
    MOST_SITES,
    SMALLEST_ROSTER,
    Context,
    refuse_repeated,
)
from wardround.common.privacy.secure_aggregation.keys import KEY_BYTES, derive, public_of
from wardround.common.privacy.secure_aggregation.messages import Advertisement, Identities
from wardround.common.privacy.secure_aggregation.refusals import Refusal, refuse
from wardround.common.privacy.secure_aggregation.roster import Roster
from wardround.common.privacy.secure_aggregation.sharing import Draw, split

_LONGEST = 2**24  # bytes of a kept message


@dataclass(frozen=True, slots=True)
class Party:
    """Who a site is, and whom it knows.

    Attributes:
        key: Its own identity.
        identities: The others', and its own; the server has no say in them.
        smallest_roster: What the hospital asks for beyond the study.
    """

    site: str
    key: Ed25519PrivateKey
    identities: Identities
    smallest_roster: int = 0

    @property
    def known(self) -> Identities:
        """Whose signatures count: those of the others, and its own."""
        return {**self.identities, self.site: self.key.public_key()}


@dataclass(frozen=True, slots=True)
class SiteRound:
    """Where a site stands in one attempt at one round; it holds the secrets of that attempt.

    Attributes:
        roster: As it was accepted; empty before.
        delivered: The sealed shares as they were accepted; empty before.
        update: SHA-256 of the words that were masked; empty before.
        survivors: The notices as they were agreed on; empty before.
        told: Whether shares were told.
        groups: How many there are, by the configuration with which the roster was accepted.
        smallest_group: Of fewer survivors nothing is told.
    """

    context: Context
    mask_secret: bytes = field(repr=False)
    channel_secret: bytes = field(repr=False)
    self_seed: bytes = field(repr=False)
    sharing_seed: bytes = field(repr=False)
    roster: bytes = field(default=b"", repr=False)
    delivered: bytes = field(default=b"", repr=False)
    update: bytes = b""
    survivors: bytes = field(default=b"", repr=False)
    told: bool = False
    groups: int = 1
    smallest_group: int = SMALLEST_ROSTER

    @property
    def is_over(self) -> bool:
        """Whether the secrets are erased: this attempt is answered no more."""
        return not self.mask_secret

    def erased(self) -> "SiteRound":
        """Return what is kept of an attempt that is over: which it was, and what was masked."""
        return SiteRound(self.context, b"", b"", b"", b"", update=self.update, told=self.told)

    def is_unmasked(self, context: Context) -> bool:
        """Return whether this is an earlier attempt at the same, and nothing of it was masked.

        What was trained for it may then be masked in the later one.
        """
        same = replace(self.context, attempt=context.attempt) == context
        return same and not (self.update or self.is_over)

    @classmethod
    def begin(
        cls, context: Context, last: "SiteRound | None" = None, draw: Draw = os.urandom
    ) -> "SiteRound":
        """Return the state of an attempt, the last one's where the same is asked for again.

        Args:
            last: Where the site stood in this run before.

        Raises:
            MaskingError: The round or the attempt is not later than the last, or the round was
                masked.
        """
        if last is not None:
            if (last.context.study, last.context.run) != (context.study, context.run):
                refuse(Refusal.OTHER_RUN, "the kept state is of another run")
            asked = context.round, context.attempt
            stood = last.context.round, last.context.attempt
            if asked == stood:
                last.context.require_same(context, "the server")
                if last.is_over:
                    refuse(Refusal.REPLAYED_ROUND, "this attempt is over, and its keys are erased")
                return last
            if asked < stood:
                refuse_repeated(last.context, context)
            if context.round == last.context.round and last.update:
                refuse(
                    Refusal.MASKED_BEFORE,
                    f"round {context.round} was masked under another roster",
                )
        return cls(context, draw(KEY_BYTES), draw(KEY_BYTES), draw(KEY_BYTES), draw(KEY_BYTES))

    def advertisement(self, party: Party) -> Advertisement:
        """Return the keys of this attempt, as the site says them."""
        return Advertisement(
            self.context,
            party.site,
            public_of(self.mask_secret),
            public_of(self.channel_secret),
            hashlib.sha256(self.self_seed).digest(),
            hashlib.sha256(self.coin).digest(),
        )

    @property
    def coin(self) -> bytes:
        """The site's part in the drawing of groups, 32 bytes; it follows from a secret seed."""
        return derive(self.sharing_seed, "coin", self.context.write(Writer()).done())

    def own_shares(self, roster: Roster) -> list[bytes]:
        """Return for each point the share of the mask secret, and behind it that of the seed.

        They follow from a seed of their own, so that they are the same after a restart.
        """
        draw = _drawn_from(self.sharing_seed, roster.digest)
        count = len(roster.members)
        keys = split(self.mask_secret, roster.threshold, count, draw)
        seeds = split(self.self_seed, roster.threshold, count, draw)
        return [key + seed for key, seed in zip(keys, seeds, strict=True)]

    def to_bytes(self) -> bytes:
        """Return the state for the site's own disk; it holds secrets."""
        writer = self.context.write(Writer())
        for secret in (
            self.mask_secret,
            self.channel_secret,
            self.self_seed,
            self.sharing_seed,
            self.roster,
            self.delivered,
            self.update,
            self.survivors,
        ):
            writer.data(secret)
        return writer.whole(int(self.told)).whole(self.groups).whole(self.smallest_group).done()

    @classmethod
    def from_bytes(cls, given: bytes) -> "SiteRound":
        """Return the state that stood on the site's disk.

        Raises:
            MaskingError: It is damaged.
        """
        reader = Reader(given)
        context = Context.read(reader)
        secrets = (
            reader.data(KEY_BYTES),
            reader.data(KEY_BYTES),
            reader.data(KEY_BYTES),
            reader.data(KEY_BYTES),
        )
        if {len(one) for one in secrets} not in ({KEY_BYTES}, {0}):
            refuse(Refusal.MALFORMED, "the kept state does not hold its four secrets")
        roster, delivered = reader.data(_LONGEST), reader.data(_LONGEST)
        update, survivors = reader.data(HASH_BYTES), reader.data(_LONGEST)
        told, groups = bool(reader.whole(1)), reader.whole(MOST_SITES)
        smallest = reader.whole(MOST_SITES)
        reader.end()
        return cls(context, *secrets, roster, delivered, update, survivors, told, groups, smallest)


def _drawn_from(seed: bytes, roster: bytes) -> Draw:
    """Return a source of bytes that follow from a secret seed: the stream of ChaCha20."""
    stream = Cipher(ChaCha20(derive(seed, "sharing", roster), bytes(16)), None).encryptor()
    return lambda count: stream.update(bytes(count))
