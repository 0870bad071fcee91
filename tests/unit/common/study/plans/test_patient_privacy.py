"""What a private study plans: the same for every site, priced before the first batch."""

import inspect
import json
import math
from typing import Any

import pytest
import torch

from wardround.common.errors import StudyError
from wardround.common.privacy.accounting import Spend, epsilon_of
from wardround.common.study.explain.patient_privacy import (
    mechanism_words,
    promise_words,
    table_words,
)
from wardround.common.study.explain.study import explain_study
from wardround.common.study.loading import parse_study, study_from_json, with_changes
from wardround.common.study.plans.patient_privacy import (
    PrivacyPlan,
    plan_privacy,
    steps_of,
    trade_offs,
)
from wardround.common.study.plans.what_leaves import kept_model
from wardround.common.study.study import Study
from wardround.common.study.variants import without_privacy

PLAN = PrivacyPlan(
    sampling_rate=0.05,
    expected_patients=32,
    clip_norm=2.0,
    noise_multiplier=1.5,
    steps=20,
    rounds=10,
    delta=1e-5,
    examples_per_patient=8,
)


def study(privacy: dict[str, Any] | None = None, **sections: Any) -> Study:
    """Return a small study under patient-level privacy."""
    content = {
        "study": {"name": "private", "task": "classification"},
        "data": {"classes": ["a", "b"], "size": [28, 28]},
        "model": {"network": "small-cnn", "normalisation": "group"},
        "privacy": {"mode": "patient", **(privacy or {})},
    }
    return parse_study({**content, **sections})


def test_the_plan_holds_what_the_study_says() -> None:
    plan = plan_privacy(
        study(
            {
                "noise_multiplier": 1.25,
                "delta": 1e-6,
                "sampling_rate": 0.1,
                "expected_patients": 50,
                "clip_norm": 0.7,
                "examples_per_patient": 20,
            },
            training={"local_steps": 7},
            federation={"rounds": 4},
        )
    )
    assert plan == PrivacyPlan(0.1, 50, 0.7, 1.25, 7, 4, 1e-6, 20)
    assert plan.planned == Spend(0.1, 1.25, 28)
    assert plan.spend() == Spend(0.1, 1.25, 7)
    assert plan.epsilon == epsilon_of([Spend(0.1, 1.25, 28)], 1e-6)


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
def test_the_noise_is_solved_for_the_budget(epsilon: float) -> None:
    plan = plan_privacy(study({"epsilon": epsilon}))
    assert 0.99 * epsilon < plan.epsilon <= epsilon


def test_without_a_budget_epsilon_is_8() -> None:
    assert plan_privacy(study()) == plan_privacy(study({"epsilon": 8.0}))


@pytest.mark.parametrize(
    ("training", "rate", "steps"),
    [
        ({}, 0.05, 20),
        ({"local_epochs": 3}, 0.05, 60),
        ({"local_epochs": 2}, 0.03, 66),
        ({"local_steps": 5}, 0.05, 5),
        ({}, 1.0, 1),
        ({}, 0.9, 1),
    ],
)
def test_a_round_has_its_steps_from_the_study(
    training: dict[str, int], rate: float, steps: int
) -> None:
    asked = study({"sampling_rate": rate, "noise_multiplier": 2.0}, training=training)
    assert steps_of(asked) == plan_privacy(asked).steps == steps


def test_p9_the_plan_cannot_know_how_many_patients_a_site_has() -> None:
    """It takes a study and nothing else, and a study that travelled plans the same."""
    assert list(inspect.signature(plan_privacy).parameters) == ["study"]
    asked = study({"epsilon": 3.0})
    assert plan_privacy(study_from_json(asked.to_json())) == plan_privacy(asked)
    other = with_changes(asked, {"simulation.sites": 7, "simulation.seed": 3})
    assert plan_privacy(other) == plan_privacy(asked)


def test_a_patient_expected_in_a_step_is_the_batch_unless_the_study_says_otherwise() -> None:
    asked = study({"noise_multiplier": 1.0}, training={"batch_size": 48})
    assert plan_privacy(asked).expected_patients == 48


def test_the_noise_of_a_mean_gradient_is_sigma_times_clip_norm_over_patients() -> None:
    assert PLAN.noise_deviation == pytest.approx(1.5 * 2.0 / 32)


def test_the_relative_noise_is_that_of_drawn_vectors() -> None:
    """The norm of the noise over the norm of a sum of aligned, clipped gradients, both drawn."""
    parameters, patients = 20_000, 400
    noise = torch.randn(parameters, generator=torch.Generator().manual_seed(0))
    noise *= PLAN.noise_multiplier * PLAN.clip_norm
    signal = PLAN.clip_norm * PLAN.sampling_rate * patients
    ratio = float(noise.norm()) / signal
    assert PLAN.relative_noise(patients, parameters) == pytest.approx(ratio, rel=0.02)


def test_a_study_without_patient_level_privacy_has_no_plan() -> None:
    with pytest.raises(StudyError, match=r"privacy.mode = 'none'.*set privacy.mode = 'patient'"):
        plan_privacy(study({"mode": "none"}))


def test_a_comparison_without_privacy_keeps_the_rest_of_the_study() -> None:
    asked = study({"epsilon": 3.0, "clip_norm": 0.5, "sampling_rate": 0.2})
    bare = without_privacy(asked)
    assert bare.privacy.mode == "none"
    assert bare.model == asked.model
    assert bare.federation == asked.federation


def test_the_best_model_is_kept_by_what_is_measured_with_noise() -> None:
    assert kept_model(study()) == "best"
    assert kept_model(without_privacy(study())) == "best"


def test_other_budgets_are_priced_beside_the_study_s_own() -> None:
    rows = trade_offs(PLAN, 5000, patients=(100, 1000), epsilons=(8.0, 1.0))
    assert [row.epsilon for row in rows] == sorted(row.epsilon for row in rows)
    noises = [row.noise_multiplier for row in rows]
    assert noises == sorted(noises, reverse=True)
    assert PLAN.noise_multiplier in noises
    for row in rows:
        spent = epsilon_of([Spend(0.05, row.noise_multiplier, 200)], 1e-5)
        assert row.epsilon == pytest.approx(spent, rel=2e-3)
        few, many = row.relative_noise
        assert few == pytest.approx(10 * many)
        assert few == pytest.approx(row.noise_multiplier * math.sqrt(5000) / 5)


def test_the_study_s_own_budget_stands_in_the_table_once() -> None:
    rows = trade_offs(PLAN, 10, epsilons=(PLAN.epsilon * 1.001, 50.0))
    assert len(rows) == 2
    text = table_words(rows, (100, 300, 1000, 3000, 10_000), PLAN, 10)
    marked = [line for line in text.splitlines() if line.startswith("*")]
    assert len(marked) == 1
    assert "1.5000" in marked[0]


def test_the_promise_names_unit_adjacency_accountant_and_every_constant() -> None:
    text = " ".join([*promise_words(PLAN), *mechanism_words(PLAN)])
    for word in ("the patient", "added or removed", "privacy loss distributions", "1e-05"):
        assert word in text
    for word in ("20 steps", "0.05", "8 examples", "length 2", "deviation 3", "multiplier of 1.5"):
        assert word in text
    assert "by 32" in text


def test_epsilon_is_never_said_smaller_than_it_is() -> None:
    said = next(word for word in promise_words(PLAN) if "epsilon = " in word)
    whole, once = (float(part.split()[0].rstrip(",")) for part in said.split("epsilon = ")[1:])
    assert PLAN.epsilon <= whole <= PLAN.epsilon * 1.01
    single = epsilon_of([PLAN.spend()], PLAN.delta)
    assert single <= once <= single * 1.01


def test_a_hospital_reads_what_is_promised_and_what_no_longer_leaves() -> None:
    text = explain_study(study({"epsilon": 3.0}))
    leaving, _, rest = text.partition("These never leave")
    assert "What is promised to each training patient" in leaving
    assert "What is promised to each validation and test patient" in leaving
    assert "all 11 of the study together have epsilon = 3 at delta = 1e-05" in leaving
    assert "the one of the study has epsilon = 3 at delta = 1e-05" in leaving
    assert "epsilon = 3 at delta = 1e-05" in leaving
    assert "training examinations it holds" not in leaving
    assert "mean training loss" not in leaving
    assert "how many training patients and examinations the hospital has" in rest
    assert "its training loss" in rest
    assert "no differential privacy" not in text
    assert "epsilons add up" in text


def test_without_privacy_nothing_is_promised() -> None:
    text = explain_study(study({"mode": "none"}))
    assert "What is promised" not in text
    assert "no differential privacy" in text


def test_the_command_prints_the_plan_and_the_trade_off(wardround, tmp_path) -> None:
    path = tmp_path / "private.toml"
    path.write_text(study({"epsilon": 3.0}).to_toml(), encoding="utf-8")
    said = wardround("study", "privacy", str(path), "--patients", "200,500")
    assert said.code == 0
    assert "epsilon = 3 at delta = 1e-05" in said.out
    assert "n=200" in said.out
    assert "n=500" in said.out
    read = json.loads(wardround("study", "privacy", str(path), "--json").out)
    assert read["noise_multiplier"] == plan_privacy(study({"epsilon": 3.0})).noise_multiplier
    assert read["parameters"] == 8034


@pytest.mark.parametrize("sizes", ["50,abc", "0", "-3"])
def test_sizes_that_are_no_numbers_are_refused(wardround, tmp_path, sizes: str) -> None:
    path = tmp_path / "private.toml"
    path.write_text(study().to_toml(), encoding="utf-8")
    said = wardround("study", "privacy", str(path), f"--patients={sizes}")
    assert said.code == 2
    assert "write e.g. 200,500,2000" in said.err


def test_the_command_refuses_a_study_that_promises_nothing(wardround, tmp_path) -> None:
    path = tmp_path / "plain.toml"
    path.write_text(study({"mode": "none"}).to_toml(), encoding="utf-8")
    said = wardround("study", "privacy", str(path))
    assert said.code == 2
    assert "set privacy.mode = 'patient'" in said.err
