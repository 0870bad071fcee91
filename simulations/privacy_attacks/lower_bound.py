"""How much privacy was lost at least, from the guesses about one run (Steinke et al. 2023).

Each of m canaries was in the training data or not by a fair coin. Somebody guesses some coins from
what was let out. Under (epsilon, delta) differential privacy too many right guesses are unlikely:
the largest epsilon that makes them too unlikely is a lower bound on the true one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LARGEST = 64.0  # beyond it no number of canaries tells two epsilons apart
# The shares of the canaries that are guessed, chosen before any score is seen: each is a test.
GUESSED_SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


@dataclass(frozen=True, slots=True)
class LowerBound:
    """What a set of guesses proves.

    Attributes:
        epsilon: At least this, at the significance asked for; 0 proves nothing.
        guesses: How many coins were guessed in the test that proves most.
        correct: How many of them rightly.
    """

    epsilon: float
    guesses: int
    correct: int


def p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return how likely so many right guesses are at best, were (epsilon, delta)-DP true.

    Steinke et al. 2023, theorem 5.2: with ``W ~ Binomial(r, e^eps / (1 + e^eps))`` it is at most
    ``P(W >= v) + 2 m delta max_i P(v > W >= v - i) / i``.

    Args:
        canaries: m, each in or out by a fair coin of its own.
        guesses: r, how many were guessed; r is fixed before the scores are seen.
        correct: v, how many of them rightly.
    """
    from scipy.special import expit
    from scipy.stats import binom

    chance = expit(epsilon)
    reached = float(binom.sf(correct - 1, guesses, chance))
    if delta == 0 or correct == 0:
        return min(reached, 1.0)
    short = np.arange(1, correct + 1)
    near = binom.sf(correct - short - 1, guesses, chance) - reached
    return min(1.0, reached + 2 * canaries * delta * float(np.max(near / short)))


def bound_epsilon(
    canaries: int, guesses: int, correct: int, delta: float, significance: float
) -> float:
    """Return the largest epsilon that so many right guesses refute, 0 if they refute none."""
    from scipy.optimize import brentq

    def margin(epsilon: float) -> float:
        return p_value(canaries, guesses, correct, epsilon, delta) - significance

    if guesses == 0 or margin(0.0) >= 0:
        return 0.0
    return float(brentq(margin, 0.0, _LARGEST, xtol=1e-7)) if margin(_LARGEST) > 0 else _LARGEST


def bound_from_scores(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    delta: float,
    significance: float,
    shares: Sequence[float] = GUESSED_SHARES,
) -> LowerBound:
    """Return the best bound of a few rules that were fixed beforehand, each at its part of alpha.

    A rule guesses "in" for the highest scores and "out" for as many of the lowest. Choosing the
    number of guesses after the scores would prove too much; here the significance is divided by the
    number of rules (Bonferroni).

    Args:
        scores: ``(m,)``: the higher, the more the canary looks trained on.
        included: ``(m,)``: the coins.
        shares: Of the canaries that are guessed, a rule each.
    """
    order, count = np.argsort(-scores, kind="stable"), len(scores)
    best = LowerBound(0.0, 0, 0)
    for share in shares:
        half = max(1, round(count * share / 2))
        high, low = order[:half], order[count - half :]
        correct = int(included[high].sum() + (~included[low]).sum())
        found = bound_epsilon(count, 2 * half, correct, delta, significance / len(shares))
        best = max(best, LowerBound(found, 2 * half, correct), key=lambda bound: bound.epsilon)
    return best
