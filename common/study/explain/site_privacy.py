"""The promise to whole hospitals in words, with the numbers that say how weak it is."""

from collections.abc import Iterator

from wardround.common.privacy.accounting import Spend, epsilon_of, noise_for
from wardround.common.study.explain.distributed_noise import share_words
from wardround.common.study.explain.patient_privacy import factor_words, rounded_up
from wardround.common.study.plans.distributed_noise import NoiseShares
from wardround.common.study.plans.site_privacy import SitePrivacyPlan

USUAL_SITES = (4, 10, 30)
STRONG_EPSILON = 8.0  # the least that is usually called a promise


def site_promise_words(plan: SitePrivacyPlan) -> Iterator[str]:
    """Yield what is promised to each hospital, against whom, and by what means."""
    yield (
        "the unit is the hospital: all that one hospital adds to the network in a round counts "
        "together. It is hidden from whoever sees the network, and not from the server;"
    )
    yield (
        f"all {plan.rounds} rounds together are differentially private with epsilon = "
        f"{rounded_up(plan.epsilon)} at delta = {plan.delta:g}, for two federations of which one "
        "gets nothing from a certain hospital;"
    )
    yield (
        f"so whatever is concluded from the network would, but for a chance of {plan.delta:g}, be "
        f"at most {factor_words(plan.epsilon)} times as likely with a given hospital's patients as "
        "without them;"
    )
    yield from _mechanism(plan)
    yield weakness(plan)


def share_promise_words(shares: NoiseShares) -> Iterator[str]:
    """Yield what noise in the sum promises to each hospital, the server included among those."""
    epsilon, delta = shares.epsilon(shares.honest), shares.delta
    of_patients = Spend(1.0, shares.noise_multiplier / 2, shares.rounds)
    yield (
        "the unit is the hospital: all that one hospital adds to the network in a round counts "
        "together. It is hidden from whoever sees the network, and from the server, which sees "
        "sums alone;"
    )
    yield (
        f"all {shares.rounds} rounds together are differentially private with epsilon = "
        f"{rounded_up(epsilon)} at delta = {delta:g}, for two federations of which one gets "
        "nothing from a certain hospital;"
    )
    yield (
        f"a hospital shortens its change of the network to the length {shares.clip_norm:g} where "
        "it is longer, whatever number of steps it is made of;"
    )
    yield (
        "each training patient is promised what a change of twice that length costs, which the "
        "hospital's privacy ledger is charged: epsilon = "
        f"{rounded_up(epsilon_of([of_patients], delta))};"
    )
    yield from share_words(shares)


def weakness(plan: SitePrivacyPlan) -> str:
    """Return the warning, with the numbers behind it."""
    strong = noise_for(STRONG_EPSILON, plan.delta, 1.0, plan.rounds)
    with_it = ", ".join(f"{strong * plan.clip_norm / n:.2g} with {n}" for n in USUAL_SITES)
    verdict = "this is weak" if plan.epsilon > STRONG_EPSILON else "this costs accuracy"
    return (
        f"{verdict}: few hospitals cannot hide one of them cheaply. A noise multiplier of "
        f"{plan.noise_multiplier:g} over {plan.rounds} rounds gives epsilon "
        f"{rounded_up(plan.epsilon)}; epsilon {STRONG_EPSILON:g} needs {strong:.3g}, which on each "
        f"number of the mean is a noise of {with_it} hospitals, while the whole mean change of the "
        f"network is at most {plan.clip_norm:g} long."
    )


def site_limits_words() -> Iterator[str]:
    """Yield what privacy of hospitals does not promise."""
    yield (
        "The server sees every hospital's update without noise, and must be trusted with it. Only "
        "privacy.mode = 'patient' protects patients from the server."
    )
    yield (
        "Metrics, losses and numbers of examinations go to the server without noise, and so into "
        "its report."
    )
    yield (
        "The noise is drawn by the operating system and never repeated: the same study with the "
        "same seed ends in another network, and so does a run that is resumed. A round that has to "
        "be trained again because its commit was damaged is spent again."
    )


def _mechanism(plan: SitePrivacyPlan) -> Iterator[str]:
    yield (
        f"the server shortens a hospital's change of the network to the length {plan.clip_norm:g} "
        f"where it is longer, adds noise of {plan.sum_noise:.4g} times that length to the sum, and "
        "divides by the number of all hospitals, each counting the same;"
    )
    if plan.adaptive is not None:
        yield (
            f"that length then follows the {plan.adaptive.quantile:g} quantile of the changes' "
            "lengths, read from a count with noise of the standard deviation "
            f"{plan.adaptive.count_noise:.3g}, which the epsilon above covers;"
        )
    noise = ", ".join(f"{plan.mean_noise(n):.2g} with {n}" for n in USUAL_SITES)
    yield f"the noise on each number of the mean is {noise} hospitals;"
