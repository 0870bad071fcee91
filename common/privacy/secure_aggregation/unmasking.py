"""Masks taken away from a sum: survivors' own ones, and those that dropped sites left behind."""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from math import comb

from wardround.common.privacy.secure_aggregation.keys import public_of
from wardround.common.privacy.secure_aggregation.masks import Words
from wardround.common.privacy.secure_aggregation.pairs import add_own_mask, add_pair_mask
from wardround.common.privacy.secure_aggregation.refusals import MaskingError, Refusal, refuse
from wardround.common.privacy.secure_aggregation.roster import Roster
from wardround.common.privacy.secure_aggregation.sharing import combine

_MOST_TRIES = 2_000  # sets of shares, where a site has told a false one: four of thirty may


@dataclass(frozen=True, slots=True)
class Shares:
    """What was told of each site, by the points of those who told it.

    Attributes:
        seeds: Of each survivor.
        keys: Of each site that dropped after it had sent shares.
    """

    seeds: Mapping[str, Mapping[int, bytes]]
    keys: Mapping[str, Mapping[int, bytes]]


def take_masks_away(total: Words, roster: Roster, senders: bytes, shares: Shares) -> set[str]:
    """Turn the survivors' masked sum into their sum, in place; return who told a false share.

    Args:
        total: ``(d,)``, the sum of masked vectors.
        senders: Hash of those whose masks are in it.

    Returns:
        Those who stood in the way; a false share that was not needed is not looked at.

    Raises:
        MaskingError: Too few shares of a site were told, or false ones; the sum stays as it was.
    """
    liars = set[int]()
    seeds = {
        site: _rebuilt(told, roster, site, lambda secret: hashlib.sha256(secret).digest(), liars)
        for site, told in shares.seeds.items()
    }
    keys = {
        site: _rebuilt(told, roster, site, public_of, liars) for site, told in shares.keys.items()
    }
    for site, seed in seeds.items():
        add_own_mask(total, roster, senders, seed, site, subtract=True)
    for dropped, secret in keys.items():
        for survivor in seeds:  # what the dropped one would have added cancels what is there
            add_pair_mask(total, roster, senders, secret, dropped, survivor)
    return {roster.names[point - 1] for point in liars}


def _rebuilt(
    told: Mapping[int, bytes],
    roster: Roster,
    site: str,
    public: Callable[[bytes], bytes],
    liars: set[int],
) -> bytes:
    """Return a secret whose public half is the one that its site has signed.

    Where a share is false, other sets of shares are tried.

    Args:
        liars: The points of those who told a false share before; who does now is added.
    """
    member = roster.member(site)
    signed = member.mask_key, member.seed_hash
    found: tuple[Sequence[int], bytes] | None = None
    for points in _sets(told, roster.threshold, liars):
        secret = _combined(told, points)
        if secret is not None and public(secret) in signed:
            found = points, secret
            break
    if found is None:
        refuse(Refusal.FALSE_SHARE, f"{len(told)} shares of {site} do not give what it has signed")
    points, secret = found
    if list(points) != sorted(told)[: len(points)]:  # others were tried before
        rest = (point for point in told if point not in points)
        liars |= {point for point in rest if _combined(told, [*points[1:], point]) != secret}
    return secret


def _sets(told: Mapping[int, bytes], needed: int, liars: set[int]) -> Iterator[Sequence[int]]:
    """Yield sets of so many points, first of those who told the truth so far.

    All sets, where these are few; of many any, since those that come first in order have the same
    sites in them.
    """
    points = sorted(told)
    if len(points) < needed:
        return
    yield sorted(points, key=lambda point: point in liars)[:needed]
    if comb(len(points), needed) <= _MOST_TRIES:
        yield from combinations(points, needed)
        return
    drawn = random.Random(0)  # no secret: which shares are tried
    for _ in range(_MOST_TRIES):
        yield drawn.sample(points, needed)


def _combined(told: Mapping[int, bytes], points: Sequence[int]) -> bytes | None:
    with suppress(MaskingError):
        return combine({point: told[point] for point in points})
    return None
