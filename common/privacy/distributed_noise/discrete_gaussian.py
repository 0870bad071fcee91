"""The discrete Gaussian distribution, drawn exactly, many numbers at once.

Canonne, Kamath and Steinke 2020 ("The discrete Gaussian for differential privacy", NeurIPS),
algorithms 1 to 3: a whole number ``y`` has the probability ``exp(-y^2 / (2 s^2)) / Z``. The
parameter ``s`` is a power of two, so that every probability on the way is a fraction of 2^61, or
``1 / k``, and a coin is a comparison of whole numbers of 64 bits: nothing is rounded, and no number
of floating point takes part. Not covered: how long it takes, which depends on what is drawn.
"""

import numpy as np
from numpy.typing import NDArray

from wardround.common.privacy.secure_random import Randomness

Whole = NDArray[np.int64]
Words = NDArray[np.uint64]
Coins = NDArray[np.bool_]
MOST_BITS = 30  # of the standard deviation: its square is the largest fraction that fits
_PARTS = 61  # a probability is so many binary places
_BLOCK = 1 << 16
_SIGN = 63


def discrete_gaussian(count: int, bits: int, randomness: Randomness) -> Whole:
    """Return ``(count,)`` independent numbers of standard deviation parameter ``2^bits``.

    Args:
        bits: From 0 to 30. From 2 on the variance is ``2^(2 bits)`` to 16 digits.
        randomness: Where all chance comes from.

    Raises:
        ValueError: There are too many bits.
    """
    if not 0 <= bits <= MOST_BITS:
        msg = f"a standard deviation of 2^{bits} cannot be drawn: use 0 to {MOST_BITS} bits."
        raise ValueError(msg)
    numbers = np.empty(count, dtype=np.int64)
    for start in range(0, count, _BLOCK):
        end, place = min(start + _BLOCK, count), start
        while place < end:
            taken = _accepted(2 * (end - place) + 16, bits, randomness)[: end - place]
            numbers[place : place + len(taken)] = taken
            place += len(taken)
    return numbers


def _accepted(tries: int, bits: int, randomness: Randomness) -> Whole:
    """Return what is left of so many tries (algorithm 3): a Laplace number, kept by a coin.

    With ``t = s`` the coin is ``exp(-(|y| - s)^2 / (2 s^2))``. Here ``|y| = u + s v``.
    """
    low, times, negative = _laplace(tries, bits, randomness)
    scale = np.int64(1 << bits)
    ones, places = half_square(np.abs(low + scale * (times - 1)), bits)
    kept = _falls(places.astype(np.uint64), randomness)
    kept[kept] = _falls_whole(ones[kept], randomness)
    size = low[kept] + scale * times[kept]
    signed: Whole = np.where(negative[kept], -size, size)
    return signed


def half_square(distance: Whole, bits: int) -> tuple[Whole, Whole]:
    """Return ``distance^2 / (2 s^2)`` exactly: its whole part, and the rest in units of 2^-61.

    Args:
        distance: At least 0, below ``2^30 s``.
        bits: Of ``s = 2^bits``, at most 30.
    """
    mask = np.int64((1 << bits) - 1)
    whole, part = distance >> bits, distance & mask
    # (whole s + part)^2 / (2 s^2) = whole^2 / 2 + whole part / s + part^2 / (2 s^2), and the parts
    # of one behind it together are below 2^62.
    ones = (whole * whole >> 1) + (whole * part >> bits)
    places = (whole * whole & 1) << (_PARTS - 1)
    places += (whole * part & mask) << (_PARTS - bits)
    places += part * part << (_PARTS - 1 - 2 * bits)
    return ones + (places >> _PARTS), places & ((1 << _PARTS) - 1)


def _laplace(tries: int, bits: int, randomness: Randomness) -> tuple[Whole, Whole, Coins]:
    """Return numbers ``+-(u + s v)`` with probabilities in ``exp(-|y| / s)`` (algorithm 2)."""
    words = _words(tries, randomness)
    low = words & np.uint64((1 << bits) - 1)
    kept = _falls(low << np.uint64(_PARTS - bits), randomness)
    times = _lasting(int(kept.sum()), randomness)
    low, negative = low[kept].astype(np.int64), (words[kept] >> np.uint64(_SIGN)).astype(np.bool_)
    once = ~(negative & (low == 0) & (times == 0))  # 0 has one sign
    return low[once], times[once], negative[once]


def _lasting(count: int, randomness: Randomness) -> Whole:
    """Return how often coins of ``exp(-1)`` came before the first that did not."""
    times, left = np.zeros(count, dtype=np.int64), np.arange(count)
    while len(left):
        left = left[_falls_once(len(left), randomness)]
        times[left] += 1
    return times


def _falls_whole(ones: Whole, randomness: Randomness) -> Coins:
    """Return coins that are true with probability ``exp(-n)``, each with its own ``n``."""
    result, left = np.ones(len(ones), dtype=np.bool_), np.flatnonzero(ones)
    done = 0
    while len(left):
        coins = _falls_once(len(left), randomness)
        result[left[~coins]] = False
        done += 1
        left = left[coins]
        left = left[ones[left] > done]
    return result


def _falls_once(count: int, randomness: Randomness) -> Coins:
    return _falls(np.full(count, 1 << _PARTS, dtype=np.uint64), randomness)


def _falls(parts: Words, randomness: Randomness) -> Coins:
    """Return coins that are true with probability ``exp(-p / 2^61)``, each its own (algorithm 1).

    Coins of ``p / k`` follow each other, ``k = 1, 2, ...``, until one is false; the answer is
    whether that happened after an even number of true ones.

    Args:
        parts: ``(n,)``, each at most 2^61.
    """
    result, left = np.zeros(len(parts), dtype=np.bool_), np.arange(len(parts))
    turn = 1
    while len(left):
        coins = _words(len(left), randomness) >> np.uint64(64 - _PARTS) < parts[left]
        if turn > 1:
            coins[coins] = _one_in(turn, int(coins.sum()), randomness)
        result[left[~coins]] = turn % 2 == 1
        left = left[coins]
        turn += 1
    return result


def _one_in(sides: int, count: int, randomness: Randomness) -> Coins:
    """Return coins that are true once in ``sides`` times, exactly: what is left over is redrawn."""
    each = 2**64 // sides
    first, last = np.uint64(each), np.uint64(each * sides - 1)
    words = _words(count, randomness)
    while len(over := np.flatnonzero(words > last)):
        words[over] = _words(len(over), randomness)
    return words < first


def _words(count: int, randomness: Randomness) -> Words:
    found: Words = randomness.words(count).numpy().view(np.uint64)
    return found
