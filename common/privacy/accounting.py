"""What private steps cost: epsilon of any mixture of steps, and the noise that a budget needs.

The numbers are those of dp-accounting's privacy loss distributions (Koskela et al. 2020; Doroshenko
et al. 2022, "Connect the dots"), for neighbours that differ by one unit added or removed. Each
distribution is rounded so that epsilon is never too small. Rényi DP bounds it from above and picks
how fine it is; Gaussian DP, which reports too little for few or rare steps, is not used.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Protocol

from wardround.common.errors import InputError, install_command

LARGEST_EPSILON = 10_000.0  # beyond it the answer is infinity: nothing is promised
_LEAST_NOISE = 1e-4  # one step with less, unsampled, has an epsilon beyond 10^7
# Beyond it no model learns, and the search for a smaller epsilon ends in words.
_LARGEST_NOISE = 1e6
_INTERVAL = 1e-4  # of the privacy loss, for 10,000 steps or more; dp-accounting's own
_COARSE = 4.0  # times that, for a first look
_PRECISION = 1e-3  # relative, of a solved noise multiplier
_ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 384, 512, 1024)  # whole ones are exact and quick


@dataclass(frozen=True, slots=True)
class Spend:
    """Steps that each add Gaussian noise to a sum over sampled units (patients, or sites).

    Attributes:
        sampling_rate: Probability in (0, 1] that a unit takes part in a step; 1 is no sampling.
        noise_multiplier: Standard deviation of the noise over the clip norm, at least 0.
        steps: How many such steps, at least 0.

    Raises:
        InputError: A number is out of its range.
    """

    sampling_rate: float
    noise_multiplier: float
    steps: int

    def __post_init__(self) -> None:
        if not 0 < self.sampling_rate <= 1:
            msg = f"a sampling rate of {self.sampling_rate} is no probability: use one in (0, 1]."
            raise InputError(msg)
        if not 0 <= self.noise_multiplier < math.inf:
            msg = f"a noise multiplier of {self.noise_multiplier} is no noise: use a number >= 0."
            raise InputError(msg)
        if self.steps < 0:
            msg = f"{self.steps} steps cannot be made: use a number >= 0."
            raise InputError(msg)


def epsilon_of(spends: Iterable[Spend], delta: float) -> float:
    """Return the epsilon of all spends together; 0 for none, infinity where nothing is promised.

    Args:
        spends: In any order; those with equal noise and sampling count as one with all their steps.
        delta: In (0, 1).

    Raises:
        InputError: Delta is out of its range, or dp-accounting is not installed.
    """
    _check_delta(delta)
    steps: Counter[tuple[float, float]] = Counter()
    for spend in spends:
        steps[spend.sampling_rate, spend.noise_multiplier] += spend.steps
    merged = tuple(sorted((*key, count) for key, count in steps.items() if count))
    return _epsilon(merged, delta, 1.0)


def noise_for(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """Return the least noise multiplier, within 0.1 %, with which the steps cost at most epsilon.

    Args:
        epsilon: More than 0; ``epsilon_of`` the result is not above it.
        delta: In (0, 1).
        sampling_rate: In (0, 1].
        steps: At least 1.

    Raises:
        InputError: A number is out of its range, no noise is large enough, or dp-accounting is not
            installed.
    """
    if not 0 < epsilon < LARGEST_EPSILON:
        msg = f"epsilon = {epsilon} is no budget: use a number in (0, {LARGEST_EPSILON:g})."
        raise InputError(msg)
    if steps < 1:
        msg = f"{steps} steps need no noise: plan at least one."
        raise InputError(msg)
    _check_delta(delta)
    Spend(sampling_rate, 0.0, steps)
    return _noise(epsilon, delta, sampling_rate, steps)


_Steps = tuple[tuple[float, float, int], ...]  # sampling rate, noise multiplier, steps


@lru_cache(maxsize=1024)
def _noise(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """Solve on a coarse grid, whose epsilon is a little too large; then on the fine one."""

    def excess(sigma: float, coarseness: float = _COARSE) -> float:
        spent = _epsilon(((rate, sigma, steps),), delta, coarseness)
        return math.log(spent / epsilon) if spent else -math.inf

    enough = 1.0
    while excess(enough) > 0:
        enough *= 2
        if enough > _LARGEST_NOISE:
            msg = (
                f"epsilon = {epsilon:g} at delta = {delta:g} cannot be kept by {steps} steps with "
                "any noise: ask for a larger epsilon or for fewer steps."
            )
            raise InputError(msg)
    short = enough / 2
    while excess(short) <= 0:
        enough, short = short, short / 2
    _, enough = _narrow(short, enough, excess)

    def fine_excess(sigma: float) -> float:
        return excess(sigma, 1.0)

    step = 1 + _PRECISION
    while fine_excess(enough) > 0:  # not seen; then the coarse grid's answer was the smaller one
        enough *= step
    while fine_excess(enough / step) <= 0:
        enough, step = enough / step, step**2
    return _narrow(enough / step, enough, fine_excess)[1]


def _narrow(short: float, enough: float, excess: Callable[[float], float]) -> tuple[float, float]:
    """Return two noise multipliers, at most 0.1 % apart, the first too small and the second not.

    False position between logarithms, in which epsilon is nearly a straight line. Each guess is put
    a little beyond the root as seen from the end that moved last; every third halves the bracket.

    Args:
        short: Where the excess is positive.
        enough: Where it is not.
        excess: Falls with the noise.
    """
    low, high = math.log(short), math.log(enough)
    above, below = excess(short), excess(enough)
    width = math.log1p(_PRECISION)
    aside, turn = -0.4 * width, 1
    while high - low > width * (1 + 1e-9):
        guess = (low + high) / 2
        if turn % 3 and math.isfinite(above - below):
            root = low + (high - low) * above / (above - below)
            guess = min(max(root + aside, low + 0.1 * width), high - 0.1 * width)
        value = excess(math.exp(guess))
        if value > 0:
            low, above, aside = guess, value, 0.4 * width
        else:
            high, below, aside = guess, value, -0.4 * width
        turn += 1
    return math.exp(low), math.exp(high)


@lru_cache(maxsize=1024)
def _epsilon(merged: _Steps, delta: float, coarseness: float) -> float:
    """Return epsilon on a grid so many times coarser than the usual one."""
    if not merged:
        return 0.0
    if any(sigma < _LEAST_NOISE for _, sigma, _ in merged):
        return math.inf
    dp = _dp_accounting()
    bound = _compose(dp, dp.rdp.RdpAccountant(_ORDERS), merged).get_epsilon(delta)
    if not bound < 100 * LARGEST_EPSILON:
        return math.inf
    interval = _interval(bound, sum(count for *_, count in merged)) * coarseness
    accountant = dp.pld.PLDAccountant(value_discretization_interval=interval)
    # Both are true bounds: on a coarse grid either can be the looser one.
    epsilon = float(min(_compose(dp, accountant, merged).get_epsilon(delta), bound))
    return epsilon if epsilon < LARGEST_EPSILON else math.inf


def _interval(bound: float, steps: int) -> float:
    """Return a grid that is fine enough, and fits into memory where epsilon is large.

    A grid's excess grows with its square and with the steps; this one's is below 2e-4 in all of the
    published settings that the tests hold.
    """
    fine = _INTERVAL * min(max(math.sqrt(10_000 / steps), 1.0), 10.0)
    return fine * min(max(bound, 1e-3), 1.0) * max(bound / 30, 1.0)


class _Accountant(Protocol):
    """What we use of dp-accounting's accountants."""

    def compose(self, event: object, count: int) -> object:
        """Add an event, so many times."""

    def get_epsilon(self, delta: float) -> float:
        """Return what all events cost."""


def _compose(dp: ModuleType, accountant: _Accountant, merged: _Steps) -> _Accountant:
    for rate, sigma, count in merged:
        event = dp.GaussianDpEvent(sigma)
        if rate < 1:
            event = dp.PoissonSampledDpEvent(rate, event)
        accountant.compose(event, count)
    return accountant


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        msg = f"delta = {delta} is out of range: use a number in (0, 1), e.g. 1e-5."
        raise InputError(msg)


def _dp_accounting() -> ModuleType:
    try:
        for name in ("pld", "rdp"):
            import_module(f"dp_accounting.{name}")
        return import_module("dp_accounting")
    except ImportError:
        msg = (
            "differential privacy needs the package dp-accounting, which is not installed: "
            f"{install_command('privacy')}."
        )
        raise InputError(msg) from None
