"""What site and server say to each other, as canonical bytes that the sender signs.

Each is signed by the site's own identity, under a domain and the name of the message: a signature
of one is none for another. From the roster on a message names the roster's hash, which covers the
context, all keys and the threshold.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wardround.common.privacy.secure_aggregation.canonical import Reader, Writer
from wardround.common.privacy.secure_aggregation.context import HASH_BYTES, MOST_SITES, Context
from wardround.common.privacy.secure_aggregation.keys import KEY_BYTES
from wardround.common.privacy.secure_aggregation.refusals import Refusal, refuse
from wardround.common.privacy.secure_aggregation.sharing import SHARE_BYTES

_DOMAIN = b"wardround secure aggregation 1\n"
_SIGNATURE_BYTES = 64  # of Ed25519
SEALED_BYTES = 2 * SHARE_BYTES + 16  # two shares, and the tag of Poly1305
Identities = Mapping[str, Ed25519PublicKey]


class _Body(Protocol):
    KIND: ClassVar[str]

    @property
    def site(self) -> str:
        """Who says it."""

    def body(self) -> bytes:
        """Return what is signed."""

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read what was signed."""


Said = TypeVar("Said", bound=_Body)


@dataclass(frozen=True, slots=True)
class Advertisement:
    """Stage 1: a site's keys of this round, and which model it got.

    Attributes:
        mask_key: X25519, for the masks that cancel between two sites.
        channel_key: X25519, for the shares that a site sends to another.
        seed_hash: SHA-256 of the seed of the site's own mask, so that it cannot be shared wrongly.
        coin_hash: SHA-256 of its coin, of which groups are drawn, told before anybody's coin is.
    """

    KIND: ClassVar[str] = "advertisement"
    context: Context
    site: str
    mask_key: bytes
    channel_key: bytes
    seed_hash: bytes
    coin_hash: bytes

    def body(self) -> bytes:
        """Return what is signed."""
        writer = self.context.write(Writer()).text(self.site)
        writer.data(self.mask_key).data(self.channel_key).data(self.seed_hash)
        return writer.data(self.coin_hash).done()

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read what was signed."""
        context, site = Context.read(reader), reader.text()
        keys = reader.exactly(KEY_BYTES), reader.exactly(KEY_BYTES)
        return cls(context, site, *keys, reader.exactly(HASH_BYTES), reader.exactly(HASH_BYTES))


@dataclass(frozen=True, slots=True)
class SealedShares:
    """Stage 2: a site's shares of its two secrets, each pair sealed for one other site.

    Attributes:
        roster: Its hash.
        sealed: For each other site of the roster.
        coin: The site's part in the drawing of groups; empty where there are none.
    """

    KIND: ClassVar[str] = "shares"
    roster: bytes
    site: str
    sealed: tuple[tuple[str, bytes], ...]
    coin: bytes = b""

    def body(self) -> bytes:
        """Return what is signed."""
        writer = Writer().data(self.roster).text(self.site).whole(len(self.sealed))
        for name, sealed in self.sealed:
            writer.text(name).data(sealed)
        return writer.data(self.coin).done()

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read what was signed."""
        roster, site, count = reader.exactly(HASH_BYTES), reader.text(), reader.whole(MOST_SITES)
        sealed = tuple((reader.text(), reader.exactly(SEALED_BYTES)) for _ in range(count))
        return cls(roster, site, sealed, reader.data(KEY_BYTES))


@dataclass(frozen=True, slots=True)
class MaskedNotice:
    """Stage 3: what a site signs of its masked vector.

    Attributes:
        senders: Hash of the names of those whose shares the site holds: its masks are with them.
        vector: SHA-256 of the masked words.
    """

    KIND: ClassVar[str] = "masked"
    roster: bytes
    site: str
    senders: bytes
    vector: bytes

    def body(self) -> bytes:
        """Return what is signed."""
        writer = Writer().data(self.roster).text(self.site)
        return writer.data(self.senders).data(self.vector).done()

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read what was signed."""
        roster, site = reader.exactly(HASH_BYTES), reader.text()
        return cls(roster, site, reader.exactly(HASH_BYTES), reader.exactly(HASH_BYTES))


@dataclass(frozen=True, slots=True)
class Agreement:
    """Stage 4: the one set of survivors that a site will help to unmask.

    Attributes:
        survivors: Hash of their notices.
    """

    KIND: ClassVar[str] = "agreement"
    roster: bytes
    site: str
    survivors: bytes

    def body(self) -> bytes:
        """Return what is signed."""
        return Writer().data(self.roster).text(self.site).data(self.survivors).done()

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read what was signed."""
        return cls(reader.exactly(HASH_BYTES), reader.text(), reader.exactly(HASH_BYTES))


@dataclass(frozen=True, slots=True)
class Unmasking:
    """Stage 5: one share of each other site's secrets: of its seed, or of its key if it dropped.

    Attributes:
        seeds: Shares of survivors' own masks.
        keys: Shares of the mask keys of those who sent shares, and no vector.
    """

    KIND: ClassVar[str] = "unmasking"
    roster: bytes
    site: str
    survivors: bytes
    seeds: tuple[tuple[str, bytes], ...]
    keys: tuple[tuple[str, bytes], ...]

    def __post_init__(self) -> None:
        """Check that no site has both of its secrets in it.

        Raises:
            MaskingError: One has.
        """
        if {name for name, _ in self.seeds} & {name for name, _ in self.keys}:
            refuse(Refusal.BOTH_SHARES, f"{self.site} tells both shares of a site")

    def body(self) -> bytes:
        """Return what is signed."""
        writer = Writer().data(self.roster).text(self.site).data(self.survivors)
        for shares in (self.seeds, self.keys):
            writer.whole(len(shares))
            for name, share in shares:
                writer.text(name).data(share)
        return writer.done()

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read what was signed."""
        head = reader.exactly(HASH_BYTES), reader.text(), reader.exactly(HASH_BYTES)
        return cls(*head, _shares(reader), _shares(reader))


def sign(message: _Body, key: Ed25519PrivateKey) -> bytes:
    """Return a message with its signature."""
    body = message.body()
    return key.sign(_DOMAIN + message.KIND.encode() + b"\n" + body) + body


def read_signed(kind: type[Said], signed: bytes, identities: Identities) -> Said:
    """Return a message whose signature is that of the site that it names.

    Args:
        identities: The keys of the sites that may take part, known before and not from the server.

    Raises:
        MaskingError: It cannot be read, is of a site that is not known, or is not signed by it.
    """
    signature, body = signed[:_SIGNATURE_BYTES], signed[_SIGNATURE_BYTES:]
    reader = Reader(body)
    message = kind.read(reader)
    reader.end()
    identity = identities.get(message.site)
    if identity is None:
        refuse(Refusal.UNKNOWN_SITE, f"a message is of {message.site!r:.80}, whom nobody knows")
    try:
        identity.verify(signature, _DOMAIN + kind.KIND.encode() + b"\n" + body)
    except InvalidSignature:
        refuse(
            Refusal.FALSE_SIGNATURE, f"the {kind.KIND} of {message.site} is not signed by that site"
        )
    return message


def hash_of(signed: tuple[bytes, ...]) -> bytes:
    """Return the SHA-256 of some messages, in their order."""
    writer = Writer().whole(len(signed))
    for one in signed:
        writer.data(one)
    return hashlib.sha256(writer.done()).digest()


def hash_of_names(names: tuple[str, ...]) -> bytes:
    """Return the SHA-256 of a list of names."""
    return hashlib.sha256(Writer().texts(names).done()).digest()


def write_list(signed: tuple[bytes, ...]) -> bytes:
    """Return some messages as one."""
    writer = Writer().whole(len(signed))
    for one in signed:
        writer.data(one)
    return writer.done()


def read_list(given: bytes, longest: int = 2_000) -> tuple[bytes, ...]:
    """Return the messages that one holds.

    Raises:
        MaskingError: It holds none, or too many, or one that is too long.
    """
    reader = Reader(given)
    found = tuple(reader.data(longest) for _ in range(reader.whole(MOST_SITES)))
    reader.end()
    return found


def write_delivery(
    shares: tuple[tuple[str, bytes], ...], coins: Mapping[str, bytes] | None = None
) -> bytes:
    """Return the sealed shares that a server passes on to one site, by their senders.

    Args:
        coins: Of all sites, where they are in groups.
    """
    writer = Writer().whole(len(shares))
    for sender, sealed in shares:
        writer.text(sender).data(sealed)
    writer.whole(len(coins or {}))
    for site, coin in sorted((coins or {}).items()):
        writer.text(site).data(coin)
    return writer.done()


def read_delivery(given: bytes) -> tuple[tuple[str, bytes], ...]:
    """Return the sealed shares of a delivery.

    Raises:
        MaskingError: It cannot be read.
    """
    return _delivery(given)[0]


def read_coins(given: bytes) -> dict[str, bytes]:
    """Return the coins of a delivery, by their sites.

    Raises:
        MaskingError: It cannot be read.
    """
    return dict(_delivery(given)[1])


def _delivery(given: bytes) -> tuple[tuple[tuple[str, bytes], ...], tuple[tuple[str, bytes], ...]]:
    reader = Reader(given)
    count = reader.whole(MOST_SITES)
    found = tuple((reader.text(), reader.exactly(SEALED_BYTES)) for _ in range(count))
    count = reader.whole(MOST_SITES)
    coins = tuple((reader.text(), reader.exactly(KEY_BYTES)) for _ in range(count))
    reader.end()
    return found, coins


def _shares(reader: Reader) -> tuple[tuple[str, bytes], ...]:
    count = reader.whole(MOST_SITES)
    return tuple((reader.text(), reader.exactly(SHARE_BYTES)) for _ in range(count))
