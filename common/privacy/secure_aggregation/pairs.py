"""The secrets that two sites of a roster have in common: the mask that cancels, and the channel."""

from wardround.common.privacy.secure_aggregation.canonical import Writer
from wardround.common.privacy.secure_aggregation.keys import agree, derive
from wardround.common.privacy.secure_aggregation.masks import Words, add_mask
from wardround.common.privacy.secure_aggregation.roster import Roster


def about(roster: Roster, first: str, second: str, senders: bytes = b"") -> bytes:
    """Return canonical bytes of all that a key of two sites is for.

    Args:
        senders: Hash of those whose masks are in the sum, where that is known.
    """
    writer = roster.members[0].context.write(Writer()).data(roster.digest)
    return writer.data(senders).text(first).text(second).done()


def channel_key(roster: Roster, secret: bytes, sender: str, receiver: str, mine: str) -> bytes:
    """Return the key that seals one site's shares for another.

    Args:
        secret: The channel secret of ``mine``, which is one of the two.
    """
    other = receiver if mine == sender else sender
    shared = agree(secret, roster.member(other).channel_key)
    return derive(shared, "channel", about(roster, sender, receiver))


def add_pair_mask(
    vector: Words, roster: Roster, senders: bytes, secret: bytes, mine: str, other: str
) -> None:
    """Add the mask of two sites as ``mine`` adds it: the first by name adds, the other subtracts.

    Args:
        vector: ``(d,)`` words; changed in place.
        secret: The mask secret of ``mine``.
    """
    shared = agree(secret, roster.member(other).mask_key)
    key = derive(shared, "mask", about(roster, min(mine, other), max(mine, other), senders))
    add_mask(vector, key, subtract=mine > other)


def add_own_mask(
    vector: Words, roster: Roster, senders: bytes, seed: bytes, site: str, subtract: bool = False
) -> None:
    """Add to ``(d,)`` words, in place, the mask that a site has with nobody; or take it away."""
    key = derive(seed, "own mask", about(roster, site, site, senders))
    add_mask(vector, key, subtract)
