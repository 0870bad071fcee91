"""What a hospital allows: nothing by default, and never less privacy than it asks for."""

import os
import tomllib
from collections.abc import Callable
from dataclasses import replace
from datetime import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from wardround.client.policy.policy import OPEN_POLICY, POLICY_FILE, Policy, open_policy
from wardround.client.policy.rules import (
    RULES,
    DeniedError,
    Facts,
    is_within,
    judge,
    planned_epsilon,
    require_allowed,
)
from wardround.client.policy.template import TEMPLATE
from wardround.common.errors import PolicyError
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study
from wardround.simulations.sites.site_folders import write_open_policy

FACTS = Facts(training_patients=50, update_bytes=1_000_000, now=time(12, 0))


def study_with(**privacy: Any) -> Study:
    return parse_study(
        {
            "study": {"name": "tiny", "task": "classification"},
            "data": {"classes": ["a", "b"], "size": [16, 16]},
            "model": {"network": "small-cnn", "features": [4, 8], "normalisation": "group"},
            "training": {"local_steps": 2},
            "federation": {"rounds": 2},
            "privacy": privacy,
        }
    )


PLAIN, PRIVATE = study_with(), study_with(mode="patient", epsilon=2.0)


def asking(**privacy: Any) -> Study:
    """Return the private study with another promise, unchecked: to solve for noise is slow."""
    return PRIVATE.model_copy(update={"privacy": PRIVATE.privacy.model_copy(update=privacy)})


def policy_for(study: Study, **changes: Any) -> Policy:
    return Policy(approved=(study.digest,), **changes)


def denials(policy: Policy, study: Study, facts: Facts = FACTS) -> list[str]:
    return [verdict.rule for verdict in judge(policy, study, facts) if not verdict.allowed]


def test_the_default_allows_nothing() -> None:
    assert "approved" in denials(Policy(), PRIVATE)
    assert denials(Policy(), PLAIN) == ["approved", "privacy"]


def test_an_approved_private_study_is_allowed_and_every_rule_says_why() -> None:
    verdicts = list(judge(policy_for(PRIVATE), PRIVATE, FACTS))
    assert [verdict.rule for verdict in verdicts] == list(RULES)
    assert all(verdict.allowed and verdict.reason for verdict in verdicts)


def test_the_template_is_the_default_policy() -> None:
    assert Policy.model_validate(tomllib.loads(TEMPLATE)) == Policy()


def test_approval_is_of_one_digest() -> None:
    other = asking(epsilon=2.1)
    assert denials(policy_for(PRIVATE), other) == ["approved"]


def test_privacy_that_is_required_cannot_be_switched_off_by_a_study() -> None:
    assert denials(policy_for(PLAIN), PLAIN) == ["privacy"]
    assert denials(policy_for(PLAIN, privacy_required=False), PLAIN) == []


def test_a_study_may_ask_for_more_privacy_and_never_for_less() -> None:
    caps = {"study_epsilon": 3.0, "lifetime_epsilon": 5.0}
    for epsilon, expected in (
        (0.5, []),
        (3.0, []),
        (3.1, ["study epsilon"]),
        (5.1, ["study epsilon", "lifetime epsilon"]),
    ):
        study = asking(epsilon=epsilon)
        assert denials(policy_for(study, **caps), study) == expected


def test_a_site_may_refuse_the_rounds_above_its_cap_and_not_the_study() -> None:
    study = asking(epsilon=5.0)
    policy = policy_for(study, study_epsilon=3.0, refused_above_the_cap="round")
    assert denials(policy, study) == []
    (said,) = (
        verdict for verdict in judge(policy, study, FACTS) if verdict.rule == "study epsilon"
    )
    assert said.reason == (
        "epsilon 5; at most 3 for one study: it takes part until a round would pass that"
    )


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"study_epsilon": 1.0}, "budget"),
        ({"lifetime_epsilon": 1.0, "lifetime_delta": 1e-9}, "budget"),
        ({"lifetime_epsilon": 1.0, "tasks": ("segmentation",)}, "policy"),
        ({"tasks": ("segmentation",)}, "policy"),
    ],
)
def test_a_refusal_for_the_budget_alone_is_called_that(changes: dict[str, Any], code: str) -> None:
    with pytest.raises(DeniedError) as denied:
        require_allowed(policy_for(PRIVATE, **changes), PRIVATE, FACTS)
    assert denied.value.code == code


@settings(deadline=None)
@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_epsilon_above_the_cap_is_always_denied(epsilon: float, cap: float) -> None:
    study = asking(epsilon=epsilon)
    denied = denials(policy_for(study, study_epsilon=cap, lifetime_epsilon=1e9), study)
    assert denied == (["study epsilon"] if epsilon > cap else [])


def test_epsilon_of_a_study_that_names_its_noise_is_computed() -> None:
    loud = asking(epsilon=None, noise_multiplier=0.5)
    quiet = asking(epsilon=None, noise_multiplier=4.0)
    assert planned_epsilon(loud) > 2 > planned_epsilon(quiet)
    assert denials(policy_for(loud, study_epsilon=2.0), loud) == ["study epsilon"]
    assert denials(policy_for(quiet, study_epsilon=2.0), quiet) == []


def test_a_larger_delta_than_the_policy_s_is_denied() -> None:
    study = asking(delta=1e-4)
    assert denials(policy_for(study), study) == ["delta"]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"tasks": ("segmentation",)}, "task"),
        ({"networks": ("mlp",)}, "network"),
        ({"smallest_cohort": 51}, "cohort"),
        ({"largest_validation_share": 0.1}, "shares"),
        ({"largest_test_share": 0.14}, "shares"),
        ({"largest_message_megabytes": 0.9}, "message size"),
        ({"training_hours": (time(22), time(6))}, "training hours"),
    ],
)
def test_each_limit_denies_on_its_own(changes: dict[str, Any], rule: str) -> None:
    assert denials(policy_for(PRIVATE, **changes), PRIVATE) == [rule]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"validation_fraction": 0.3, "test_fraction": 0.35}, []),
        ({"validation_fraction": 0.31}, ["shares"]),
        ({"test_fraction": 0.9}, ["shares"]),
    ],
)
def test_a_study_may_not_set_most_patients_aside(
    asked: dict[str, float], expected: list[str]
) -> None:
    study = PLAIN.model_copy(update={"evaluation": PLAIN.evaluation.model_copy(update=asked)})
    assert denials(policy_for(study, privacy_required=False), study) == expected


def test_a_refusal_names_every_rule_that_denies() -> None:
    with pytest.raises(DeniedError, match=r"approved: nobody approved it.*privacy: privacy.mode"):
        require_allowed(Policy(), PLAIN, FACTS)


@pytest.mark.parametrize(
    ("weight", "expected"), [(1000.0, []), (1000.5, ["weights"]), (float("nan"), ["weights"])]
)
def test_a_received_weight_beyond_the_bound_denies(weight: float, expected: list[str]) -> None:
    facts = replace(FACTS, largest_weight=weight)
    assert denials(policy_for(PRIVATE), PRIVATE, facts) == expected


@pytest.mark.parametrize(
    ("asked", "weight", "expected"),
    [
        (10.0, 10.0, []),
        (10.0, 10.5, ["weights"]),
        (1e6, 1000.0, []),
        (1e6, 1000.5, ["weights"]),
    ],
)
def test_a_study_may_lower_the_bound_of_a_received_weight_and_never_raise_it(
    asked: float, weight: float, expected: list[str]
) -> None:
    study, facts = asking(largest_weight=asked), replace(FACTS, largest_weight=weight)
    assert denials(policy_for(study), study, facts) == expected


def test_what_is_not_known_yet_denies_nothing() -> None:
    hours = (time(22), time(6))
    policy = policy_for(PRIVATE, smallest_cohort=10**6, training_hours=hours)
    assert denials(policy, PRIVATE, Facts()) == []


@pytest.mark.parametrize(
    ("hours", "now", "expected"),
    [
        (("08:00", "18:00"), "08:00", True),
        (("08:00", "18:00"), "17:59", True),
        (("08:00", "18:00"), "18:00", False),
        (("22:00", "06:00"), "23:30", True),
        (("22:00", "06:00"), "05:59", True),
        (("22:00", "06:00"), "06:00", False),
        (("22:00", "06:00"), "12:00", False),
    ],
)
def test_hours_may_cross_midnight(hours: tuple[str, str], now: str, expected: bool) -> None:
    start, end = (time.fromisoformat(hour) for hour in hours)
    assert is_within((start, end), time.fromisoformat(now)) is expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"lifetime_eps": 3}, "did you mean 'lifetime_epsilon'"),
        ({"approved": "any"}, "approved = 'any' is for simulated sites"),
        ({"approved": ["abc"]}, "64 hexadecimal digits"),
        ({"networks": ["small-cn"]}, "Did you mean 'small-cnn'"),
        ({"metrics": "sums"}, "set metrics = 'values'"),
        ({"smallest_cohort": 5}, "smallest_cohort = 5 is less than smallest_cell = 10"),
        ({"lifetime_epsilon": 0}, "greater than 0"),
        ({"lifetime_epsilon": float("nan")}, "finite"),
        ({"smallest_cell": 0}, "greater than or equal to 1"),
        ({"training_hours": ["25:00", "06:00"]}, "training_hours"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_with_a_remedy(
    content: dict[str, Any], message: str, tmp_path: Path
) -> None:
    import tomli_w

    (tmp_path / POLICY_FILE).write_text(tomli_w.dumps(content))
    with pytest.raises(PolicyError, match=message):
        open_policy(tmp_path)


def test_a_policy_cannot_be_changed_in_memory() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Policy().simulated = True  # type: ignore[misc]


def test_a_folder_without_a_policy_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=f"wardround site policy new {tmp_path}"):
        open_policy(tmp_path)


def test_a_policy_that_was_changed_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / POLICY_FILE
    path.write_text(f'approved = ["{PLAIN.digest}"]')
    assert open_policy(tmp_path).approved == (PLAIN.digest,)
    path.write_text(f'approved = ["{PRIVATE.digest}"]')
    os.utime(path, ns=(1, 1))
    assert open_policy(tmp_path).approved == (PRIVATE.digest,)
    path.unlink()
    with pytest.raises(PolicyError):
        open_policy(tmp_path)


def test_a_simulated_site_says_in_its_folder_that_it_allows_everything(tmp_path: Path) -> None:
    write_open_policy(tmp_path)
    assert open_policy(tmp_path) == OPEN_POLICY
    assert "simulated = true" in (tmp_path / POLICY_FILE).read_text()
    for study in (PLAIN, PRIVATE):
        assert denials(OPEN_POLICY, study, Facts(1, 10**9, time(3))) == []


def test_a_policy_that_a_simulated_site_has_is_kept(tmp_path: Path) -> None:
    (tmp_path / POLICY_FILE).write_text(TEMPLATE)
    write_open_policy(tmp_path)
    assert open_policy(tmp_path) == Policy()


def test_policy_new_writes_a_policy_that_check_accepts(
    wardround: Callable[..., Any], tmp_path: Path
) -> None:
    assert wardround("site", "policy", "new", tmp_path).code == 0
    said = wardround("site", "policy", "check", tmp_path)
    assert said.code == 0
    assert Policy.model_validate(tomllib.loads(said.out)) == Policy()
    again = wardround("site", "policy", "new", tmp_path)
    assert again.code == 2
    assert "exists already" in again.err
