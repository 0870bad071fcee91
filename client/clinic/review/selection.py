"""Which cases are read: the least sure, spread out, or drawn by lot; ties go by a hash of the id.

No choice depends on the order of a table: whoever sorts the rows changes nothing.
"""

import hmac
from collections.abc import Sequence

import numpy as np

from wardround.client.clinic.review.scores import Floats

SHORTLIST = 4  # times the budget: among so many of the least sure the spread-out ones are taken


def by_lot(ids: Sequence[str], key: bytes, word: str) -> list[int]:
    """Return places in an order that is random to whoever lacks the key, and always the same.

    Args:
        ids: Of the cases, each once.
        key: The site's.
        word: Another word, another order.
    """
    return sorted(range(len(ids)), key=lambda at: _draw(key, word, ids[at]))


def by_score(scores: Floats, ids: Sequence[str], key: bytes) -> list[int]:
    """Return places of ``(N,)`` scores, the largest first; equal ones by a hash of the id."""
    return sorted(range(len(ids)), key=lambda at: (-scores[at], _draw(key, "tie", ids[at])))


def spread_out(
    features: Floats, order: Sequence[int], budget: int, held: Floats | None = None
) -> list[int]:
    """Return a budget of cases that lie far from each other (core-set, Sener and Savarese 2018).

    The first is the first of the order; then always the one that lies farthest from all that are
    chosen and all that are known (greedy k-centre, which is within twice the best radius). The
    earlier in the order goes first where two lie as far.

    Args:
        features: ``(N, F)``.
        order: Places that may be chosen, the most wanted first, as :func:`by_score` gives them;
            only the first ``SHORTLIST`` times the budget are looked at.
        budget: How many.
        held: ``(H, F)`` of cases that are labelled already.
    """
    candidates = np.array(order[: SHORTLIST * budget], dtype=np.int64)
    if len(candidates) <= budget:
        return [int(place) for place in candidates]
    points = features[candidates]
    nearest = np.full(len(points), np.inf)
    for known in () if held is None else held:
        nearest = np.minimum(nearest, ((points - known) ** 2).sum(axis=1))
    chosen: list[int] = []
    while len(chosen) < budget:
        at = int(np.argmax(nearest))  # the first of the largest; all are infinite to begin with
        chosen.append(at)
        nearest = np.minimum(nearest, ((points - points[at]) ** 2).sum(axis=1))
        nearest[chosen] = -1.0
    return [int(place) for place in candidates[chosen]]


def _draw(key: bytes, word: str, text: str) -> bytes:
    return hmac.digest(key, f"{word}\0{text}".encode(), "sha256")
