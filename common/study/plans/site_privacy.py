"""What privacy of whole sites does in every round of a study, and what it costs.

The server, which is trusted, shortens each site's change and adds noise to their sum (central
differential privacy of clients: McMahan et al. 2018, "Learning differentially private recurrent
language models"). All sites take part in every round, so nothing is gained by sampling.
"""

import math
from dataclasses import dataclass

from wardround.common.errors import StudyError
from wardround.common.privacy.accounting import Spend, epsilon_of
from wardround.common.study.study import Study

CLIPPING_RATE = 0.2  # how fast the clip norm follows (Andrew et al. 2021, section 3)
_COUNT_SHARE = 1.05  # by so much the count raises the noise on the sum, where a study does not say


@dataclass(frozen=True, slots=True)
class AdaptiveClipping:
    """A clip norm that follows a quantile of the changes' norms (Andrew et al. 2021, algorithm 1).

    Attributes:
        quantile: Share of the sites whose change is to be no longer than the clip norm.
        count_noise: Standard deviation of the noise on the number of those whose change is.
    """

    quantile: float
    count_noise: float

    def followed(self, clip_norm: float, share: float) -> float:
        """Return the next clip norm.

        Args:
            share: Of the sites whose change was no longer than this one, with its noise.
        """
        return clip_norm * math.exp(-CLIPPING_RATE * (share - self.quantile))


@dataclass(frozen=True, slots=True)
class SitePrivacyPlan:
    """Clipping, noise and accounting of privacy for sites.

    The neighbours are two federations of which one gets nothing from a certain site, all else
    equal; the number of sites is public.

    Attributes:
        clip_norm: Largest norm of a site's change, in the first round if it is adaptive.
        noise_multiplier: Of all that a round lets out: the sum, and the count where there is one.
        adaptive: How the clip norm follows the changes; None if it stays.
        rounds: Rounds of the study.
        delta: In (0, 1).
    """

    clip_norm: float
    noise_multiplier: float
    adaptive: AdaptiveClipping | None
    rounds: int
    delta: float

    @property
    def sum_noise(self) -> float:
        """Standard deviation of the noise on the sum, over the clip norm.

        ``(z^-2 - (2 s)^-2)^-1/2``: with the noise ``s`` on a count to which a site adds a half or
        takes it away, both together cost what a sum with ``z`` costs (Andrew et al. 2021, theorem
        1).
        """
        if self.adaptive is None:
            return self.noise_multiplier
        whole, count = self.noise_multiplier, 2 * self.adaptive.count_noise
        return 1 / math.sqrt(1 / whole**2 - 1 / count**2)

    @property
    def planned(self) -> Spend:
        """What all rounds of the study spend."""
        return Spend(1.0, self.noise_multiplier, self.rounds)

    @property
    def epsilon(self) -> float:
        """Epsilon of all rounds, at the plan's delta."""
        return epsilon_of([self.planned], self.delta)

    def mean_noise(self, sites: int) -> float:
        """Return the standard deviation of the noise on each number of the sites' mean change."""
        return self.sum_noise * self.clip_norm / sites


def plan_site_privacy(study: Study) -> SitePrivacyPlan:
    """Return the plan of a study whose ``privacy.mode`` is "site".

    Raises:
        StudyError: It has another mode, or no noise multiplier.
    """
    privacy = study.privacy
    if privacy.mode != "site" or privacy.noise_multiplier is None:
        msg = (
            f"privacy.mode = {privacy.mode!r} has no plan for sites: set privacy.mode = 'site' and "
            "privacy.noise_multiplier."
        )
        raise StudyError(msg)
    adaptive = None
    if privacy.adaptive_clipping:
        count_noise = privacy.count_noise or usual_count_noise(privacy.noise_multiplier)
        adaptive = AdaptiveClipping(privacy.clip_quantile, count_noise)
    return SitePrivacyPlan(
        clip_norm=privacy.clip_norm,
        noise_multiplier=privacy.noise_multiplier,
        adaptive=adaptive,
        rounds=study.federation.rounds,
        delta=privacy.delta,
    )


def usual_count_noise(noise_multiplier: float) -> float:
    """Return the noise on the count that raises the noise on the sum by 5 %: 1.64 times it.

    The paper's own, a twentieth of the clients, is for hundreds of them: with a few sites it would
    let out more through the count than through the sum.
    """
    return noise_multiplier / (2 * math.sqrt(1 - _COUNT_SHARE**-2))
