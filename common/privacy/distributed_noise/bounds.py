"""What the sum of several sites' discrete Gaussian noise promises (Kairouz, Liu, Steinke 2021).

"The distributed discrete Gaussian mechanism for federated learning with secure aggregation" (ICML
2021): theorem 1 and proposition 14. Lengths are in units of the grid.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 384, 512)  # whole: the sum below is finite


def rounded_sensitivity(clip: float, step: float, numbers: int, beta: float = 0.0) -> float:
    """Return how long a vector of length ``clip`` may be on a grid, ``Delta_2`` of theorem 1.

    Args:
        clip: c, its length before.
        step: gamma, the distance of the grid's lines.
        numbers: d, of the vector.
        beta: Of rounding at random that is repeated until the length is within the bound: the
            chance that a first try is not. 0: whatever the rounding, to either neighbour.
    """
    worst = (clip + step * math.sqrt(numbers)) ** 2
    if beta == 0:
        return math.sqrt(worst)
    usual = clip**2 + step**2 * numbers / 4
    usual += math.sqrt(2 * math.log(1 / beta)) * step * (clip + step * math.sqrt(numbers) / 2)
    return math.sqrt(min(worst, usual))


def distance_from_gaussian(sites: int, deviation: float) -> float:
    """Return ``tau``: how far a sum of discrete Gaussians may be from one, in each number.

    Args:
        sites: n, that add their noise.
        deviation: Of each site's noise, in units of the grid, at least 1/2.
    """
    terms = (
        math.exp(-2 * math.pi**2 * deviation**2 * part / (part + 1)) for part in range(1, sites)
    )
    return 10 * math.fsum(terms)


@dataclass(frozen=True, slots=True)
class NoisySum:
    """A sum to which several sites add discrete Gaussian noise.

    Attributes:
        sensitivity: Length of what a unit adds to it.
        deviation: Of each site's noise.
        sites: n, that add theirs.
        numbers: d, of the sum.
    """

    sensitivity: float
    deviation: float
    sites: int
    numbers: int


def renyi_divergence(order: float, noisy: NoisySum) -> float:
    """Return a bound of the Renyi divergence of two sums that differ by a vector (proposition 14).

    Args:
        order: alpha, at least 1.
    """
    tau = distance_from_gaussian(noisy.sites, noisy.deviation)
    scale = noisy.sensitivity / noisy.deviation / math.sqrt(noisy.sites)
    return min(
        order / 2 * scale**2 + tau * noisy.numbers,
        order / 2 * (scale + tau * math.sqrt(noisy.numbers)) ** 2,
    )


def sampled_divergence(order: int, rate: float, whole: Sequence[float]) -> float:
    """Return the divergence of a whole order where a unit takes part by chance.

    The binomial sum of Mironov, Talwar and Zhang 2019 (section 3.3). It holds for each noise that
    is symmetric, as here: turning a sum around the middle of the two puts one distribution onto the
    other, which is all that their theorem 5 asks for.

    Args:
        order: At least 2.
        rate: Probability in (0, 1] of a unit.
        whole: The divergence without sampling of order ``k`` at place ``k``, up to ``order``.
    """
    if rate == 1:
        return whole[order]
    terms = [
        math.log(math.comb(order, k)) + (order - k) * math.log1p(-rate) + k * math.log(rate)
        + (0.0 if k < 2 else (k - 1) * whole[k])
        for k in range(order + 1)
    ]  # fmt: skip
    most = max(terms)
    return (most + math.log(math.fsum(math.exp(term - most) for term in terms))) / (order - 1)


def epsilon_by_renyi(divergences: Sequence[float], orders: Sequence[int], delta: float) -> float:
    """Return epsilon from divergences (Canonne, Kamath, Steinke 2020, proposition 12).

    Args:
        divergences: Of all steps together, one an order.
    """
    found = (
        divergence + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        for order, divergence in zip(orders, divergences, strict=True)
    )
    return max(min(found), 0.0)


def paper_epsilon(noisy: NoisySum, steps: int, rate: float, delta: float) -> float:
    """Return the epsilon of so many steps by the bounds of the paper alone."""
    whole = [renyi_divergence(max(order, 1), noisy) for order in range(ORDERS[-1] + 1)]
    divergences = [steps * sampled_divergence(order, rate, whole) for order in ORDERS]
    return epsilon_by_renyi(divergences, ORDERS, delta)


def gap_to_gaussian(numbers: int, deviation: float, chance: float) -> float:
    """Return how far the noise of a sum is from normal noise that is rounded to the grid.

    For every set of outcomes, ``P(set) <= exp(gap) Q(set) + chance``, either way round. Rounded
    normal noise on whole numbers promises what normal noise does (post-processing), so a step
    promises that too, up to the gap and the chance. The logarithm of the ratio of the two
    probabilities of a number ``x`` is at most ``x^2 / (8 s^4) + 1 / (8 s^2)`` in size
    (``1 <= cosh y <= exp(y^2 / 2)`` under the integral over a cell), and all ``d`` numbers together
    are shorter than ``s (sqrt(d) + sqrt(2 ln 1/chance))`` but for the chance. The distance ``tau``
    of a sum from one discrete Gaussian is below 10^-300 from a deviation of 9 on.

    Args:
        numbers: d.
        deviation: s, of the sum, at least 9 units.
        chance: In (0, 1).
    """
    length = math.sqrt(numbers) + math.sqrt(2 * math.log(1 / chance))
    return (length**2 + numbers) / (8 * deviation**2)
