"""What leaves is said once, and the page that a hospital reads says the same."""

from dataclasses import astuple, replace
from typing import Any

import pytest

from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import parse_study
from wardround.common.study.plans.what_leaves import kept_model, what_leaves
from wardround.common.study.study import Study

NOISE = {"noise_multiplier": 1.0}
OF_SITES = {
    "privacy": {"mode": "site", **NOISE},
    "federation": {"aggregation": "mean"},
    "evaluation": {"keep": "last"},
}
OF_PATIENTS = {"privacy": {"mode": "patient", **NOISE}}
OPEN = ("how many training examinations", "mean training loss", "sums over its validation patients")


def study_with(**sections: dict[str, Any]) -> Study:
    base: dict[str, Any] = {
        "study": {"name": "s", "task": "classification"},
        "data": {"kind": "table", "classes": ["a", "b"], "covariates": [{"name": "x"}]},
        "model": {"network": "mlp"},
    }
    return parse_study({**base, **sections})


@pytest.mark.parametrize(
    ("sections", "noise"), [({}, "nobody"), (OF_SITES, "server")], ids=["none", "site"]
)
def test_a_study_that_hides_no_patient_lets_counts_losses_times_and_metrics_out(
    sections: dict[str, Any], noise: str
) -> None:
    study = study_with(**sections)
    leaves = what_leaves(study)
    assert leaves.noise_added_by == noise
    assert not leaves.noised_metrics
    assert not leaves.masked
    assert all(astuple(replace(leaves, noised_metrics=True, masked=True)))
    leaving = explain_study(study).partition("These never leave")[0]
    assert all(words in leaving for words in OPEN)


def test_a_study_with_privacy_of_patients_lets_nothing_out_that_is_not_noised() -> None:
    study = study_with(**OF_PATIENTS)
    leaves = what_leaves(study)
    assert leaves.noise_added_by == "site"
    assert leaves.round_metrics
    assert leaves.noised_metrics
    others = astuple(replace(leaves, round_metrics=False, noised_metrics=False))[1:]
    assert not any(others)
    page = explain_study(study)
    assert not any(words in page.partition("These never leave")[0] for words in OPEN)
    assert "its training loss" in page.partition("These never leave")[2]


def test_the_best_model_is_kept_only_where_every_round_is_measured() -> None:
    assert kept_model(study_with()) == "best"
    assert kept_model(study_with(evaluation={"keep": "last"})) == "last"
    assert kept_model(study_with(**OF_PATIENTS)) == "best"
    last = study_with(**OF_PATIENTS, evaluation={"keep": "last"})
    assert not what_leaves(last).round_metrics, "one answer has less noise than many"
    unmeasured = {"privacy": {**OF_PATIENTS["privacy"], "validation_epsilon": 0}}
    assert kept_model(study_with(**unmeasured)) == "last"
    assert kept_model(study_with(**OF_PATIENTS, evaluation={"validation_fraction": 0})) == "last"
