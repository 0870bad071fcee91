"""Masks taken away from a sum: survivors' own ones, and those that dropped sites left behind."""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations, islice

from wardround.common.privacy.secure_aggregation.keys import public_of
from wardround.common.privacy.secure_aggregation.masks import Words
from wardround.common.privacy.secure_aggregation.pairs import add_own_mask, add_pair_mask
from wardround.common.privacy.secure_aggregation.refusals import MaskingError, Refusal, refuse
from wardround.common.privacy.secure_aggregation.roster import Roster
from wardround.common.privacy.secure_aggregation.sharing import combine

_MOST_TRIES = 200  # sets of shares, where a site has told a false one


@dataclass(frozen=True, slots=True)
class Shares:
    """What was told of each site, by the points of those who told it.

    Attributes:
        seeds: Of each survivor.
        keys: Of each site that dropped after it had sent shares.
    """

    seeds: Mapping[str, Mapping[int, bytes]]
    keys: Mapping[str, Mapping[int, bytes]]


def take_masks_away(total: Words, roster: Roster, senders: bytes, shares: Shares) -> None:
    """Turn the survivors' masked sum into their sum, in place.

    Args:
        total: ``(d,)``, the sum of masked vectors.
        senders: Hash of those whose masks are in it.

    Raises:
        MaskingError: Too few shares of a site were told, or false ones; the sum stays as it was.
    """
    seeds = {
        site: _rebuilt(told, roster, site, lambda secret: hashlib.sha256(secret).digest())
        for site, told in shares.seeds.items()
    }
    keys = {site: _rebuilt(told, roster, site, public_of) for site, told in shares.keys.items()}
    for site, seed in seeds.items():
        add_own_mask(total, roster, senders, seed, site, subtract=True)
    for dropped, secret in keys.items():
        for survivor in seeds:  # what the dropped one would have added cancels what is there
            add_pair_mask(total, roster, senders, secret, dropped, survivor)


def _rebuilt(
    told: Mapping[int, bytes], roster: Roster, site: str, public: Callable[[bytes], bytes]
) -> bytes:
    """Return a secret whose public half is the one that its site has signed.

    Where a share is false, other sets of shares are tried.
    """
    member, needed = roster.member(site), roster.threshold
    secret: bytes | None = None
    for points in islice(combinations(sorted(told), needed), _MOST_TRIES):
        with suppress(MaskingError):
            tried = combine({point: told[point] for point in points})
            if public(tried) in (member.mask_key, member.seed_hash):
                secret = tried
                break
    if secret is None:
        refuse(Refusal.FALSE_SHARE, f"{len(told)} shares of {site} do not give what it has signed")
    return secret
