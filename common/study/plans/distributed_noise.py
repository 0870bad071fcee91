"""What each site adds to a masked sum, so that the sum has the noise that a study promises.

Kairouz, Liu and Steinke 2021 ("The distributed discrete Gaussian mechanism for federated learning
with secure aggregation"). Each share has the standard deviation ``2^30`` on the grid of the masked
words, so the grid follows from the noise. It is so fine that rounding costs 3e-5 of the noise and
that no word overflows: the rotation and the repeated rounding of the paper, which save bits, have
nothing to save here.
"""

import math
from dataclasses import dataclass
from typing import Literal

from wardround.common.privacy.accounting import Spend, epsilon_of
from wardround.common.privacy.distributed_noise.bounds import gap_to_gaussian
from wardround.common.privacy.secure_aggregation.context import SMALLEST_ROSTER, least_threshold
from wardround.common.privacy.secure_aggregation.fixed_point import MOST_VALUE_BITS
from wardround.common.study.plans.patient_privacy import plan_privacy
from wardround.common.study.plans.site_privacy import plan_site_privacy
from wardround.common.study.study import Study

Unit = Literal["patient", "site"]
SHARE_BITS = 30  # of the standard deviation of one site's share
SHARE = float(2**SHARE_BITS)
MOST_NUMBERS = 2**28  # of a network: more are not covered by the slack below
# A unit's part is rounded with the rest of its site's. Each of its numbers moves by less than 2
# units more than it would have: 1 by the rounding, and far less than 1 by double precision.
_SLACK = 2 * math.sqrt(MOST_NUMBERS)
_LEAST_CLIP = 2.0**20  # units: with less, the slack is no longer small
_CHANCE = 1e-30  # beside delta


@dataclass(frozen=True, slots=True)
class NoiseShares:
    """The noise of a masked sum, and of how many sites' shares it is made.

    Attributes:
        unit: Whom it hides: a patient of a site, or the whole site.
        clip_norm: Largest norm of what a unit adds to the sum.
        divisor: By what a site divides its sum: the expected patients, or 1.
        noise_multiplier: Standard deviation of the noise of ``honest`` shares over ``clip_norm``.
        sites: Fewest sites of a round.
        survivors: Of these, fewest in a sum: the masks' threshold.
        colluding: Of these, how many may help the server and tell it their shares.
        rate: With which probability a unit takes part in a round.
        rounds: Of the study.
        delta: In (0, 1).
    """

    unit: Unit
    clip_norm: float
    divisor: int
    noise_multiplier: float
    sites: int
    survivors: int
    colluding: int
    rate: float
    rounds: int
    delta: float

    @property
    def honest(self) -> int:
        """How many shares at least nobody but their sites knows."""
        return self.survivors - self.colluding

    @property
    def clip_units(self) -> float:
        """The clip norm in units of the grid; with the slack of rounding it has the noise asked."""
        return SHARE * math.sqrt(self.honest) / self.noise_multiplier - _SLACK

    @property
    def is_fine(self) -> bool:
        """Whether the grid is so fine that what is promised holds."""
        return self.clip_units >= _LEAST_CLIP

    @property
    def step(self) -> float:
        """Distance of the grid's lines, as a part of the mean that a site sends."""
        return self.clip_norm / self.divisor / self.clip_units

    @property
    def largest(self) -> float:
        """Largest number of the grid: 2^17 standard deviations of a share."""
        return self.step * (2.0 ** (MOST_VALUE_BITS - 1) - 1)

    def multiplier(self, honest: int) -> float:
        """Return the noise multiplier against whoever does not know so many shares."""
        return self.noise_multiplier * math.sqrt(honest / self.honest)

    def spend(self, honest: int, rounds: int | None = None) -> Spend:
        """Return what the study spends against whoever does not know so many shares."""
        rounds = self.rounds if rounds is None else rounds
        return Spend(self.rate, self.multiplier(honest), rounds)

    def epsilon(self, honest: int) -> float:
        """Return the epsilon of all rounds against whoever does not know so many shares."""
        return epsilon_of([self.spend(honest)], self.delta)

    @property
    def gap(self) -> float:
        """How much more all rounds cost because the noise is discrete; beside 1e-30 of delta."""
        deviation = SHARE * math.sqrt(self.honest)
        return 2 * self.rounds * gap_to_gaussian(MOST_NUMBERS, deviation, _CHANCE)

    @property
    def sum_deviation(self) -> float:
        """Standard deviation of the noise on the sites' mean, where all stay to the end."""
        return SHARE * self.step / math.sqrt(self.sites)


def is_distributed(study: Study) -> bool:
    """Return whether the sites' noise is shares of the noise of a sum."""
    return study.privacy.noise == "distributed" and study.privacy.mode != "none"


def plan_shares(study: Study) -> NoiseShares | None:
    """Return the shares of a study; None where the noise is not distributed.

    Solving for the noise takes seconds the first time in a process and nothing after.

    Raises:
        InputError: The promise cannot be kept, or dp-accounting is not installed.
    """
    if not is_distributed(study):
        return None
    privacy, sites = study.privacy, fewest_sites(study)
    survivors = least_threshold(sites)
    colluding = colluding_sites(study)
    rounds, delta, clip = study.federation.rounds, privacy.delta, privacy.clip_norm
    if privacy.mode == "site":
        noise = plan_site_privacy(study).noise_multiplier
        return NoiseShares("site", clip, 1, noise, sites, survivors, colluding, 1.0, rounds, delta)
    plan = plan_privacy(study)
    return NoiseShares(
        "patient",
        clip,
        plan.expected_patients,
        plan.noise_multiplier,
        sites,
        survivors,
        colluding,
        plan.sampling_rate,
        rounds,
        delta,
    )


def fewest_sites(study: Study) -> int:
    """Return how many sites a round of a masked study has at least."""
    return max(SMALLEST_ROSTER, study.federation.minimum_sites)


def colluding_sites(study: Study) -> int:
    """Return how many sites may help the server: as many as may drop out, unless it says fewer."""
    asked, sites = study.privacy.colluding_sites, fewest_sites(study)
    return sites - least_threshold(sites) if asked is None else asked
