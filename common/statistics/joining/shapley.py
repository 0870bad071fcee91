"""Shapley values: what each player adds to a common value, on average over all orders of joining.

Shapley 1953. Exact over all subsets, or estimated from drawn orders (Castro et al., Computers and
Operations Research 36, 2009) in which each player is first equally often, and which end early once
the rest adds next to nothing (GTG-Shapley: Liu et al., ACM TIST 13, 2022).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Value = Callable[[frozenset[int]], float]
MOST_EXACT = 6  # players: 64 subsets; of 8 they take longer than a small study trains


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Each player's share.

    Attributes:
        values: ``(n,)``, which add up to the value of all less the value of nobody; of drawn orders
            up to the tolerance.
        errors: ``(n,)`` standard errors; 0 where exact.
    """

    values: Floats
    errors: Floats


def exact_shares(players: int, value: Value) -> Shares:
    """Return exact shares; the value is asked for each of the ``2^n`` subsets once."""
    subsets = [_members(code, players) for code in range(2**players)]
    values = [value(subset) for subset in subsets]
    shares = np.zeros(players)
    for code, subset in enumerate(subsets):
        size = len(subset)
        for player in set(range(players)) - subset:
            weight = factorial(size) * factorial(players - size - 1) / factorial(players)
            shares[player] += weight * (values[code | 1 << player] - values[code])
    return Shares(shares, np.zeros(players))


def sampled_shares(
    players: int,
    value: Value,
    orders: int,
    generator: np.random.Generator,
    tolerance: float = 0.0,
) -> Shares:
    """Return shares estimated from drawn orders of joining.

    Args:
        players: How many.
        value: Of a subset.
        orders: How many are drawn, rounded up to a multiple of the players where they are as many.
            Nobody begins twice as long as somebody has not begun.
        generator: Draws them.
        tolerance: An order ends once it is so near to the value of all; the players left add 0.
    """
    nobody, everybody = value(frozenset()), value(frozenset(range(players)))
    added = []
    for _ in range(max(1, -(-orders // players))):
        for first in generator.permutation(players)[: max(2, orders)]:
            rest = generator.permutation([one for one in range(players) if one != first])
            order = [int(first), *(int(one) for one in rest)]
            added.append(_additions(order, value, (nobody, everybody), tolerance))
    table = np.array(added)
    errors = table.std(axis=0, ddof=1) / np.sqrt(len(table)) if len(table) > 1 else table[0] * 0
    return Shares(table.mean(axis=0), errors)


def _additions(
    order: list[int], value: Value, ends: tuple[float, float], tolerance: float
) -> Floats:
    added, before = np.zeros(len(order)), ends[0]
    for place, player in enumerate(order):
        if tolerance > 0 and abs(ends[1] - before) <= tolerance:
            break
        last = place == len(order) - 1
        after = ends[1] if last else value(frozenset(order[: place + 1]))
        added[player], before = after - before, after
    return added


def _members(code: int, players: int) -> frozenset[int]:
    return frozenset(player for player in range(players) if code >> player & 1)
