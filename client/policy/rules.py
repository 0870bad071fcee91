"""Whether a policy allows a study: one function a rule, each with its reason.

A study may promise its patients more than the policy asks for, never less.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import time

from wardround.client.policy.policy import Policy
from wardround.common.errors import PolicyError
from wardround.common.files.packages.references import MONAI, reference_of
from wardround.common.study.plans.masking import smallest_sum
from wardround.common.study.plans.patient_privacy import (
    DEFAULT_EPSILON,
    plan_charges,
)
from wardround.common.study.study import Study


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rule may need to know beside the study.

    Attributes:
        training_patients: Of the site, in this study; None before its manifest is read.
        update_bytes: Size of an update's arrays; None before the network is built.
        now: The site's local time when it is asked to train; None where it is not.
        largest_weight: Of the model that it is asked to train or to evaluate, in absolute value;
            NaN where one is no number. None where it is not asked.
    """

    training_patients: int | None = None
    update_bytes: int | None = None
    now: time | None = None
    largest_weight: float | None = None


# What a study may spend: a server is told so, for time does not change it and an approval neither.
BUDGET_RULES = frozenset({"study epsilon", "lifetime epsilon", "delta"})
TIME_RULE = "training minutes"
APPROVAL_RULE = "approved"
ROUNDS_RULE = "approved rounds"  # asked when a round is to be trained, and not before
EVALUATION_RULE = "evaluations"
CANARY_RULE = "canaries"
STATISTICS_RULE = "statistics"
PACKS_RULE = "packs"
PACKAGES_RULE = "packages"
PARENT_RULE = "parent"  # asked when a study goes on from one that this site took part in
_CODES_OF_RULES: dict[tuple[str, ...], str] = {
    (): "approval",
    (TIME_RULE,): "time",
    (ROUNDS_RULE,): "approval",
    (EVALUATION_RULE,): "evaluations",
    (CANARY_RULE,): "canaries",
    (PACKAGES_RULE,): "packages",
    (PARENT_RULE,): "parent",
}
_PLANNED_RULES = frozenset({"study epsilon", "lifetime epsilon"})  # what they ask takes accounting


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule says of a study.

    Attributes:
        rule: A key of RULES.
    """

    rule: str
    allowed: bool
    reason: str


class DeniedError(PolicyError):
    """A policy does not allow a study.

    Args:
        rules: The rules that do not.
        digest: The study's.
        is_rejected: Whether a person here has rejected it.
    """

    def __init__(
        self, message: str, rules: tuple[str, ...], digest: str, is_rejected: bool = False
    ) -> None:
        super().__init__(message)
        self.rules = rules
        self.digest = digest
        self.is_rejected = is_rejected

    @property
    def code(self) -> str:
        """The one word that the server is told: of all reasons the one that holds for longest.

        A server waits for an approval. So it must not hear of one that is missing where a rule
        refuses the study in any case.
        """
        if self.is_rejected:
            return "rejected"
        rules = tuple(rule for rule in self.rules if rule != APPROVAL_RULE)
        if rules and set(rules) <= BUDGET_RULES:
            return "budget"
        return _CODES_OF_RULES.get(rules, "policy")


def judge(
    policy: Policy, study: Study, facts: Facts, rules: "Mapping[str, _Rule] | None" = None
) -> Iterator[Verdict]:
    """Yield what each rule says; all of them where none is named."""
    for name, rule in (RULES if rules is None else rules).items():
        allowed, reason = rule(policy, study, facts)
        yield Verdict(name, allowed, reason)


def require_allowed(policy: Policy, study: Study, facts: Facts) -> None:
    """Check that every rule allows the study.

    Of a study that nobody approved the rules that need its plan are not asked: what that takes to
    work out is spent on studies that a person here has read.

    Raises:
        DeniedError: Names the rules that do not, and why.
    """
    approved, _ = _approved(policy, study, facts)
    asked = RULES if approved else {k: v for k, v in RULES.items() if k not in _PLANNED_RULES}
    denied = [one for one in judge(policy, study, facts, asked) if not one.allowed]
    if denied:
        reasons = "; ".join(f"{verdict.rule}: {verdict.reason}" for verdict in denied)
        msg = f"the site's policy does not allow this study ({reasons}): change one of the two."
        rules = tuple(verdict.rule for verdict in denied)
        raise DeniedError(msg, rules, study.digest, study.digest in policy.rejected)


def require_packages(policy: Policy, study: Study) -> None:
    """Check that a policy allows the packages whose code a study, or a model of one, would run.

    Raises:
        DeniedError: It does not list one with the study's hash.
    """
    allowed, reason = _packages(policy, study, Facts())
    if not allowed:
        msg = f"the site's policy does not allow this (packages: {reason}): change one of the two."
        raise DeniedError(msg, (PACKAGES_RULE,), study.digest)


def is_within(hours: tuple[time, time], now: time) -> bool:
    """Return whether a time of day lies in hours that may cross midnight; the end is outside."""
    start, end = hours
    if start <= end:
        return start <= now < end
    return now >= start or now < end


_Reply = tuple[bool, str]
_Rule = Callable[[Policy, Study, Facts], _Reply]


def _approved(policy: Policy, study: Study, facts: Facts) -> _Reply:
    digest = study.digest
    if digest in policy.rejected:
        return False, f"{digest[:16]} was rejected"
    if policy.approved == "any":
        return True, "a simulated site approves any study"
    if digest in policy.approved:
        return True, f"{digest[:16]} is approved"
    return False, f"no person here has approved it: 'wardround site approve {digest}'"


def _task(policy: Policy, study: Study, facts: Facts) -> _Reply:
    return study.study.task in policy.tasks, f"{study.study.task}; {_among(policy.tasks)}"


def _network(policy: Policy, study: Study, facts: Facts) -> _Reply:
    name = study.model.network
    if reference_of(name) is not None:
        return True, f"{name}; whether its package is allowed, the rule 'packages' says"
    if policy.simulated and name.startswith(MONAI):
        return True, f"{name}; a simulated site takes any network of MONAI"
    return name in policy.networks, f"{name}; {_among(policy.networks)}"


def _packages(policy: Policy, study: Study, facts: Facts) -> _Reply:
    if not study.packages:
        return True, "the study names none"
    names = ", ".join(f"{name} {found[:16]}" for name, found in study.packages.items())
    if policy.simulated:
        return True, f"{names}; a simulated site takes what is installed with that hash"
    allowed = dict(policy.packages)
    for name, wanted in study.packages.items():
        held = allowed.get(name)
        if held == wanted:
            continue
        lists = f"lists it with {held}" if held else "does not list it"
        return False, (
            f"the study names the package {name} with the hash {wanted}, and [packages] of the "
            f"policy {lists}: a person here who has read that code lists it"
        )
    return True, f"{names}; listed with these hashes"


def _privacy(policy: Policy, study: Study, facts: Facts) -> _Reply:
    mode = study.privacy.mode
    if mode == "patient":
        return True, "each patient has differential privacy"
    if not policy.privacy_required:
        return True, "the policy does not require differential privacy"
    return False, (
        f"privacy.mode is {mode!r}, which hides no patient from the server, and the policy "
        "requires 'patient'"
    )


def _secure_aggregation(policy: Policy, study: Study, facts: Facts) -> _Reply:
    if study.federation.secure_aggregation:
        least = smallest_sum(study)
        said = f"the server learns sums of {least} sites or more"
        if least < policy.smallest_sum:
            return False, (
                f"{said}, and the policy asks for {policy.smallest_sum}: raise "
                "federation.minimum_sites, or federation.masks.smallest_group where there are "
                "groups"
            )
        return True, f"updates leave under masks, and {said}"
    if policy.secure_aggregation == "required":
        return False, (
            "the server would see this site's own update, and the policy requires "
            "federation.secure_aggregation = true"
        )
    return True, "the server sees this site's own update, which the policy allows"


def _study_epsilon(policy: Policy, study: Study, facts: Facts) -> _Reply:
    return _epsilon_within(policy, study, policy.study_epsilon, "one study")


def _lifetime_epsilon(policy: Policy, study: Study, facts: Facts) -> _Reply:
    cap = policy.lifetime_epsilon
    allowed, reason = _epsilon_within(policy, study, cap, "all studies together")
    return allowed, f"{reason}; the ledger adds what was spent before"


def _delta(policy: Policy, study: Study, facts: Facts) -> _Reply:
    if not study.privacy.charges_patients:
        return True, "nothing is spent"
    asked, allowed = study.privacy.delta, policy.lifetime_delta
    return asked <= allowed, f"delta {asked:g}; at most {allowed:g}"


def _shares(policy: Policy, study: Study, facts: Facts) -> _Reply:
    validation, test = study.evaluation.validation_fraction, study.evaluation.test_fraction
    most = (policy.largest_validation_share, policy.largest_test_share)
    reason = (
        f"{validation:.4g} of the patients for validation and {test:.4g} for testing; "
        f"at most {most[0]:g} and {most[1]:g}"
    )
    return validation <= most[0] and test <= most[1], reason


def _cohort(policy: Policy, study: Study, facts: Facts) -> _Reply:
    found, needed = facts.training_patients, policy.smallest_cohort
    if found is None:
        return True, f"at least {needed} training patients"
    return found >= needed, f"{found} training patients; at least {needed}"


def _message(policy: Policy, study: Study, facts: Facts) -> _Reply:
    size, limit = facts.update_bytes, policy.largest_message_megabytes
    if size is None:
        return True, f"at most {limit:g} MB"
    reason = f"an update has {size / 1e6:.3g} MB; at most {limit:g} MB"
    return size <= policy.largest_message_bytes, reason


def _weights(policy: Policy, study: Study, facts: Facts) -> _Reply:
    asked = study.privacy.largest_weight
    limit = policy.largest_weight if asked is None else min(asked, policy.largest_weight)
    found = facts.largest_weight
    if found is None or study.privacy.mode != "patient":
        return True, f"at most {limit:g} in a model that patients are protected from"
    # NaN is not at most anything, so a weight that is no number is refused.
    return found <= limit, f"a received weight is {found:g}; at most {limit:g}"


def _hours(policy: Policy, study: Study, facts: Facts) -> _Reply:
    if policy.training_hours is None:
        return True, "at any time"
    start, end = policy.training_hours
    reason = f"from {start:%H:%M} to {end:%H:%M}"
    if facts.now is None:
        return True, f"{reason}; it is not asked to train now"
    return is_within(policy.training_hours, facts.now), f"{reason}; it is {facts.now:%H:%M}"


def _minutes(policy: Policy, study: Study, facts: Facts) -> _Reply:
    limit = policy.largest_training_minutes
    if limit is None:
        return True, "a round may take as long as it does"
    return True, f"a round that takes more than {limit:g} minutes is stopped, and nothing leaves"


def _evaluations(policy: Policy, study: Study, facts: Facts) -> _Reply:
    if study.privacy.mode == "patient":
        return True, "each answer has noise, is charged to its patients, and is given once a round"
    day, whole = policy.largest_evaluations_a_day, policy.largest_evaluations_of_a_study
    return True, f"at most {whole} models are measured for it, and {day} a day for all studies"


def _statistics(policy: Policy, study: Study, facts: Facts) -> _Reply:
    if not study.statistics.ask:
        return True, "the study asks for none"
    if policy.statistics == "no":
        return False, "the study asks for histograms to plan from, and statistics = 'no'"
    if study.statistics.combat and policy.statistics != "exact":
        return False, (
            "the study asks for exact sums of covariates, for ComBat, and statistics = "
            f"{policy.statistics!r}: only 'exact' lets them out"
        )
    if study.statistics.combat:
        return True, f"one answer of exact sums; {policy.largest_statistics} studies are ever told"
    if study.privacy.mode == "patient":
        return True, "one answer, with noise, charged to the training patients"
    return True, (
        f"one answer, whose cells have at least {policy.smallest_cell} patients; "
        f"{policy.largest_statistics} studies are ever given one"
    )


def _packs(policy: Policy, study: Study, facts: Facts) -> _Reply:
    asked = study.evaluation.pack
    if not asked:
        return True, "the study asks for no evidence"
    told = ", ".join(name for name in asked if name in policy.packs)
    if not told:
        return True, f"it asks for {', '.join(asked)}, of which packs in the policy lets none out"
    return True, (
        f"of the evidence it asks for it is told {told}: once a run, for "
        f"{policy.largest_packs_of_a_study} runs at most, no number of fewer than "
        f"{policy.smallest_cell} patients"
    )


def _epsilon_within(policy: Policy, study: Study, cap: float, of_what: str) -> _Reply:
    if not study.privacy.charges_patients:
        return True, "nothing is spent"
    asked = planned_epsilon(study)
    reason = f"epsilon {asked:.4g}; at most {cap:g} for {of_what}"
    if asked > cap and policy.refused_above_the_cap == "round":
        return True, f"{reason}: it takes part until a round would pass that"
    return asked <= cap, reason


def planned_epsilon(study: Study) -> float:
    """Return what all rounds of a study that is charged will have spent.

    Where the study names epsilon, the noise is solved for it, so no accountant is asked.
    """
    privacy = study.privacy
    if study.statistics.ask:  # it trains nothing
        return study.statistics.epsilon
    if privacy.noise_multiplier is not None:
        return plan_charges(study).epsilon
    return DEFAULT_EPSILON if privacy.epsilon is None else privacy.epsilon


def _among(names: tuple[str, ...]) -> str:
    return f"allowed: {', '.join(names) or 'none'}"


RULES: dict[str, _Rule] = {
    APPROVAL_RULE: _approved,
    "task": _task,
    "network": _network,
    PACKAGES_RULE: _packages,
    "privacy": _privacy,
    "secure aggregation": _secure_aggregation,
    "study epsilon": _study_epsilon,
    "lifetime epsilon": _lifetime_epsilon,
    "delta": _delta,
    "shares": _shares,
    "cohort": _cohort,
    "message size": _message,
    "weights": _weights,
    "training hours": _hours,
    TIME_RULE: _minutes,
    EVALUATION_RULE: _evaluations,
    STATISTICS_RULE: _statistics,
    PACKS_RULE: _packs,
}
