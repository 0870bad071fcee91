"""Who could learn of a patient, or of a site, and how much: with the noise of a sum, or of a part.

An observer is told apart by how many shares of the noise it does not know. Of a sum with noise from
``k`` such sites the noise multiplier is ``sqrt(k)`` times that of one.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from wardround.common.privacy.accounting import epsilon_of
from wardround.common.privacy.secure_aggregation.context import SMALLEST_ROSTER, least_threshold
from wardround.common.study.plans.distributed_noise import NoiseShares, fewest_sites, plan_shares
from wardround.common.study.plans.patient_privacy import PrivacyPlan, plan_privacy
from wardround.common.study.plans.strategy import MEANS, plan_of
from wardround.common.study.study import Study


@dataclass(frozen=True, slots=True)
class Observer:
    """What all rounds tell one observer.

    Attributes:
        name: Who it is.
        local: Epsilon where each site has the whole noise; None where the study cannot have that.
        distributed: Epsilon where the noise is that of a sum; None where it cannot.
    """

    name: str
    local: float | None
    distributed: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both kinds of noise at one epsilon against the server.

    Attributes:
        noise_of_local: Standard deviation of the noise on the sites' mean over the clip norm, where
            each site has the whole noise; None where the study cannot have that.
        noise_of_distributed: The same where the noise is that of a sum.
    """

    observers: tuple[Observer, ...]
    noise_of_local: float | None
    noise_of_distributed: float | None


def compare_noise(study: Study) -> Comparison:
    """Return what a study with privacy tells whom, with its own noise and with the other kind.

    Raises:
        StudyError: The study promises nothing that sites add noise for.
        InputError: The promise cannot be kept, or dp-accounting is not installed.
    """
    shares, masked = plan_shares(study), study.federation.secure_aggregation
    if shares is not None and shares.unit == "site":
        return Comparison(tuple(_of_shares(shares, None, True)), None, _noise(shares))
    plan = plan_privacy(study)
    spends = _Local(plan, study)
    if shares is None and sums_alone(study) and study.federation.minimum_sites >= SMALLEST_ROSTER:
        shares = _twin(plan, study)
    if shares is not None:
        rows = tuple(_of_shares(shares, spends, masked and not plan.distributed))
        local = plan.noise_multiplier / math.sqrt(shares.sites) / plan.expected_patients
        return Comparison(rows, local, _noise(shares))
    helped, alone = spends.epsilon(1), spends.epsilon(spends.seen(masked))
    rows = (
        Observer("the server, helped by all other hospitals", helped, None),
        Observer("the server alone", alone, None),
        Observer("one other hospital", spends.epsilon(spends.sites - 1), None),
        Observer("the public, which sees the models", spends.epsilon(spends.sites), None),
    )
    return Comparison(rows, None, None)


@dataclass(frozen=True, slots=True)
class _Local:
    """What local noise tells of an update, or of a sum of some."""

    plan: PrivacyPlan
    study: Study

    @property
    def sites(self) -> int:
        """How many sites are in a sum at least."""
        return max(1, self.study.federation.minimum_sites)

    def seen(self, masked: bool) -> int:
        """Return of how many sites the server sees the sum."""
        return least_threshold(fewest_sites(self.study)) if masked else 1

    def epsilon(self, sites: int) -> float:
        """Return epsilon against whoever sees a sum, and does not know the noise of so many."""
        # After a second step a site's update is no sum of gradients and noise any more: then only
        # what is promised of the update itself holds of the sum.
        known = max(1, sites) if sums_alone(self.study) else 1
        plan = self.plan
        multiplier = plan.noise_multiplier * math.sqrt(known)
        return epsilon_of([replace(plan.planned, noise_multiplier=multiplier)], plan.delta)


def sums_alone(study: Study) -> bool:
    """Return whether what sites send is a plain sum of their patients' gradients."""
    training, plan = study.training, plan_of(study)
    steps = training.local_steps == 1 or (
        training.local_steps is None and (training.local_epochs or 1) == 1
        and round(1 / study.privacy.sampling_rate) <= 1
    )  # fmt: skip
    plain = plan.aggregation in MEANS and plan.objective in ("plain", "proximal")
    return steps and plain and training.optimiser == "sgd"


def _twin(plan: PrivacyPlan, study: Study) -> NoiseShares:
    """Return the shares of the study that is the same but for its noise."""
    sites = fewest_sites(study)
    survivors = least_threshold(sites)
    return NoiseShares(
        "patient",
        plan.clip_norm,
        plan.expected_patients,
        plan.noise_multiplier,
        sites,
        survivors,
        sites - survivors,
        plan.sampling_rate,
        plan.rounds,
        plan.delta,
    )


def _of_shares(shares: NoiseShares, local: _Local | None, masked: bool) -> Iterator[Observer]:
    """Yield all observers, from who learns most to who learns least."""
    helped = f"the server, helped by {shares.colluding} hospitals"
    named = {
        helped: (shares.honest, shares.honest if masked else 1),
        "the server alone": (shares.survivors, shares.survivors if masked else 1),
        "one other hospital": (shares.survivors - 1, shares.sites - 1),
        "the public, which sees the models": (shares.survivors, shares.sites),
    }
    if not shares.colluding:
        del named[helped]
    for name, (distributed, whole) in named.items():
        yield Observer(
            name, None if local is None else local.epsilon(whole), shares.epsilon(distributed)
        )


def _noise(shares: NoiseShares) -> float:
    return shares.sum_deviation / shares.clip_norm
