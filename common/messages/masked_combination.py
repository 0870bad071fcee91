"""Combinations of updates written as sums: what a site multiplies its change by, and divides it by.

A combination fits under masks if each site can work out its part from what it alone knows, and the
server the rest from sums. So it is of a weighted mean, of FedNova (Wang et al. 2020, equation 9)
and of q-FedAvg (Li et al. 2020, ICLR, algorithm 2). What no gradient changes, as a running mean, is
the weighted mean in each of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from wardround.common.parameters.steps import effective_steps
from wardround.common.privacy.secure_aggregation.refusals import Refusal, refuse
from wardround.common.study.plans.strategy import ROBUST, plan_of
from wardround.common.study.study import Study

LARGEST_FORCE = 1024.0  # of a loss to the power q
_LEAST_LOSS = 1e-10  # a loss of 0 to a negative power is no number


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """What a site knows of its own update.

    Attributes:
        weight: What it counts in a weighted mean.
        received_loss: Of the model that it was sent, on its training patients; NaN where nobody
            asks for it.
        squared_change: Squared L2 norm of its change, of what gradients change.
    """

    weight: int
    steps: int
    received_loss: float
    squared_change: float


@dataclass(frozen=True, slots=True)
class Part:
    """A site's part of a combination.

    Attributes:
        factor: Of its change, at most 1.
        divisor: What is added up beside the changes.
    """

    factor: float
    divisor: float = 0.0


class Combination(Protocol):
    """How updates combine, split into what a site does and what the server does."""

    fraction_bits: int  # of a divisor; 0 where there is none

    def part(self, site: SiteFacts) -> Part:
        """Return a site's part."""

    def multiplier(self, weight: int, divisor: float) -> float:
        """Return what the sum of ``weight * factor * change`` is multiplied by.

        Args:
            weight: Of all sites of the sum, at least 1.
            divisor: The sum of theirs.
        """


class WeightedSum:
    """A weighted mean of the changes."""

    fraction_bits = 0

    def part(self, site: SiteFacts) -> Part:
        """Return the change as it is."""
        return Part(1.0)

    def multiplier(self, weight: int, divisor: float) -> float:
        """Return one over the weight of all."""
        return 1.0 / weight


class NormalisedSum:
    """FedNova: each change divided by its steps; their mean times the mean number of steps."""

    fraction_bits = 8

    def __init__(self, momentum: float) -> None:
        self._momentum = momentum

    def part(self, site: SiteFacts) -> Part:
        """Return one over the steps, and the steps times the weight."""
        length = effective_steps(site.steps, self._momentum)
        return Part(1.0 / length, site.weight * length)

    def multiplier(self, weight: int, divisor: float) -> float:
        """Return the mean number of steps over the weight of all."""
        return divisor / weight / weight


class FairSum:
    """q-FedAvg: ``x + sum_k F_k^q (y_k - x) / sum_k (q F_k^(q-1) L |y_k - x|^2 + F_k^q)``.

    Numerator and divisor of the paper are divided by ``L``, one over the learning rate.
    """

    fraction_bits = 20

    def __init__(self, learning_rate: float, fairness: float) -> None:
        self._lipschitz, self._fairness = 1 / learning_rate, fairness

    def part(self, site: SiteFacts) -> Part:
        """Return the loss to the power q, over the largest, and the site's summand below."""
        loss, q = max(site.received_loss, _LEAST_LOSS), self._fairness
        force = loss**q
        if not force <= LARGEST_FORCE:  # NaN is not
            refuse(
                Refusal.OUT_OF_RANGE,
                f"the received model's loss to the power {q:g} is above {LARGEST_FORCE:g}",
            )
        below = q * loss ** (q - 1) * self._lipschitz * site.squared_change + force
        return Part(force / LARGEST_FORCE, below)

    def multiplier(self, weight: int, divisor: float) -> float:
        """Return the largest loss to the power q over the sum below; each site's weight is 1."""
        return LARGEST_FORCE / divisor if divisor > 0 else math.nan


def combination_of(study: Study) -> Combination:
    """Return how a masked study combines its updates, or those of each group.

    Raises:
        KeyError: It is none that can be written as sums; the study's rules say so first.
    """
    training, plan = study.training, plan_of(study)
    known: Mapping[str, Combination] = {
        "weighted-mean": WeightedSum(),
        **{rule: WeightedSum() for rule in ROBUST},  # they look at the means of groups
        "mean": WeightedSum(),
        "normalised-mean": NormalisedSum(training.momentum),
        "fair-mean": FairSum(training.learning_rate, plan.options.fairness),
    }
    return known[plan.aggregation]
