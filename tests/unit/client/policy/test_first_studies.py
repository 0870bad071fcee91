"""A study and a policy that our own commands write fit together, or it is said before."""

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wardround.client.policy.policy import Policy
from wardround.client.policy.rules import Facts, judge
from wardround.client.policy.template import TEMPLATE
from wardround.client.training.schedule import few_steps_note
from wardround.common.study.loading import load_study, parse_study, with_changes
from wardround.common.study.template import (
    STARTING_DELTA,
    STARTING_EPSILON,
    TEMPLATE_TASKS,
    refused_at_first,
    study_template,
)

FIRST_POLICY = Policy(**tomllib.loads(TEMPLATE))


@pytest.mark.parametrize("task", TEMPLATE_TASKS)
def test_a_private_study_as_it_is_first_written_fits_the_first_policy(
    task: str, tmp_path: Path, wardround: Callable[..., Any]
) -> None:
    path = tmp_path / "study.toml"
    assert wardround("study", "new", path, "--task", task, "--private").code == 0
    study = load_study(path)
    approving = FIRST_POLICY.model_copy(update={"approved": (study.digest,)})
    facts = Facts(training_patients=200, update_bytes=10**6)
    assert [one.reason for one in judge(approving, study, facts) if not one.allowed] == []
    assert study.privacy.epsilon is not None
    assert study.privacy.epsilon <= FIRST_POLICY.lifetime_epsilon / 2, "several studies fit"
    assert "Note" not in wardround("study", "check", path).out


@pytest.mark.parametrize("task", TEMPLATE_TASKS)
def test_a_study_without_privacy_says_that_the_first_policy_refuses_it(
    task: str, tmp_path: Path, wardround: Callable[..., Any]
) -> None:
    path = tmp_path / "study.toml"
    assert wardround("study", "new", path, "--task", task).code == 0
    said = wardround("study", "check", path).out
    assert "the policy that a site starts with requires 'patient'" in said
    approving = FIRST_POLICY.model_copy(update={"approved": (load_study(path).digest,)})
    denied = [one.rule for one in judge(approving, load_study(path), Facts()) if not one.allowed]
    assert denied == ["privacy"]


def test_a_task_that_is_none_is_refused_with_those_that_are(
    tmp_path: Path, wardround: Callable[..., Any]
) -> None:
    said = wardround("study", "new", tmp_path / "study.toml", "--task", "forecasting")
    assert said.code == 2
    assert "segmentation" in said.err


def test_what_is_said_of_the_first_policy_is_what_it_says() -> None:
    assert FIRST_POLICY.privacy_required
    assert FIRST_POLICY.lifetime_epsilon == FIRST_POLICY.study_epsilon == STARTING_EPSILON
    assert FIRST_POLICY.lifetime_delta == STARTING_DELTA
    study = parse_study(tomllib.loads(study_template("classification", private=True)))
    assert [*refused_at_first(study)] == []
    greedy = with_changes(study, {"privacy.epsilon": 8.0, "privacy.delta": 1e-4})
    assert len([*refused_at_first(greedy)]) == 2


def test_few_steps_a_round_are_warned_of() -> None:
    study = parse_study(tomllib.loads(study_template("classification", private=False)))
    assert few_steps_note(25, study.training) == ()
    passes = with_changes(study, {"training.local_steps": None, "training.local_epochs": 1})
    assert few_steps_note(80, passes.training) == ()
    (said,) = few_steps_note(64, passes.training)
    assert said.startswith("4 steps a round: with fewer than 5 the training swings")
