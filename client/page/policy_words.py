"""A hospital's policy in words, a line for each thing that it allows or limits."""

from collections.abc import Iterator

from wardround.client.policy.policy import NO_LIMIT, Policy
from wardround.common.study.registry import NETWORKS, TASKS

_METRICS = {
    "sums": "as exact tables of counts, whose cells may be single patients",
    "values": "as numbers of three decimals",
    "none": "not at all",
}
_ABOVE = {
    "study": "a study that plans more is refused whole",
    "round": "the site takes part until a round would pass it",
}


def policy_words(policy: Policy) -> tuple[tuple[str, str], ...]:
    """Return what a policy says: what it is about, and a sentence without its full stop."""
    said = (*_privacy(policy), *_studies(policy), *_leaving(policy), *_work(policy))
    simulated = "this is no hospital: it allows everything"
    return (("simulated", simulated), *said) if policy.simulated else said


def _privacy(policy: Policy) -> Iterator[tuple[str, str]]:
    cap = policy.lifetime_epsilon
    life = (
        "no cap"
        if cap >= NO_LIMIT
        else f"at most epsilon {cap:g} at delta "
        + (f"{policy.lifetime_delta:g} for a patient, over all studies")
    )
    yield "privacy budget", life
    above = _ABOVE[policy.refused_above_the_cap]
    study = policy.study_epsilon
    yield "of one study", "no cap" if study >= NO_LIMIT else f"at most epsilon {study:g}; {above}"
    required = (
        "a study must protect each patient"
        if policy.privacy_required
        else ("a study without privacy for patients may be approved too")
    )
    yield "privacy required", required


def _studies(policy: Policy) -> Iterator[tuple[str, str]]:
    yield "tasks", _among(policy.tasks, len(TASKS))
    yield "networks", _among(policy.networks, len(NETWORKS))
    packages = ", ".join(f"{name} ({found[:12]})" for name, found in policy.packages)
    yield "packages whose code may run", packages or "none"
    yield "approval", _approval(policy)
    yield (
        "patients set aside",
        f"a study may set aside at most {policy.largest_validation_share:.0%} for validation and "
        f"{policy.largest_test_share:.0%} for testing, where the manifest does not say",
    )


def _approval(policy: Policy) -> str:
    if policy.approved == "any":
        return "any study is approved"
    return (
        "each study must be approved by a person here; without privacy of patients an approval is "
        f"for {policy.rounds_factor:g} times the rounds that the study names"
    )


def _leaving(policy: Policy) -> Iterator[tuple[str, str]]:
    yield "metrics leave", _METRICS[policy.metrics]
    yield (
        "counts leave",
        f"none below {policy.smallest_cell}, each rounded down to a multiple of it; at least "
        f"{policy.smallest_cohort} training patients are needed to take part",
    )
    told = "no"
    if policy.statistics != "no":
        told = f"of {policy.largest_statistics} studies at most"
    if policy.statistics == "exact":
        told += ", and exact sums of covariates for ComBat"
    yield "histograms to plan from", told
    yield "packs of evidence", ", ".join(policy.packs) or "none"
    yield (
        "evaluations without noise",
        f"{policy.largest_evaluations_a_day} a day, {policy.largest_evaluations_of_a_study} for a "
        "study",
    )
    yield "a message", f"at most {policy.largest_message_megabytes:g} MB"


def _work(policy: Policy) -> Iterator[tuple[str, str]]:
    hours, minutes = policy.training_hours, policy.largest_training_minutes
    when = "at any time" if hours is None else f"from {hours[0]:%H:%M} to {hours[1]:%H:%M}"
    long = "" if minutes is None else f"; a round takes at most {minutes:g} minutes"
    yield "training", f"{when}{long}"
    yield "finished models", "may be fetched" if policy.takes_models else "are not fetched"


def _among(names: tuple[str, ...], count: int) -> str:
    return "all that there are" if len(names) >= count else ", ".join(names) or "none"
