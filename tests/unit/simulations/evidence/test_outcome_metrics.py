"""Intervals of numbers and times: each patient left out once, with all its examinations."""

from dataclasses import replace

import numpy as np
import pytest
from lifelines.utils import concordance_index
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from wardround.common.metrics.censoring import censored_cases, no_cases
from wardround.common.metrics.survival import at_horizon
from wardround.simulations.evidence.intervals.outcome_metrics import (
    beyond_expected,
    left_out,
    outcome_gains,
    outcome_interval,
)
from wardround.simulations.run_files.outcomes import Outcomes

ORACLES = {
    "mae": mean_absolute_error,
    "rmse": root_mean_squared_error,
    "r2": r2_score,
}


def drawn(seed: int, kind: str = "number", noise: float = 5.0, patients: int = 40) -> Outcomes:
    """Return 60 examinations, of which some patients have two, whose errors go together."""
    generator, chance = np.random.default_rng(seed), np.random.default_rng(seed + 1000)
    of = np.concatenate([np.arange(patients), np.arange(patients // 2)])
    truth = generator.normal(60, 12, patients)[of]
    estimates = truth + chance.normal(0, noise, patients)[of] + chance.normal(0, 1, len(of))
    events = generator.random(patients)[of] < 0.6 if kind == "time" else np.ones(len(of)) > 0
    if kind == "time":
        truth, estimates = truth.round(), 1 / (1 + np.exp(estimates / 10 - 6))
    errors = no_cases(len(of))
    if kind == "time":
        at = np.linspace(20, 80, 7)
        alive = np.exp(-estimates[:, None] * at / 60)
        truth, events = at_horizon(truth, events, float(at[-1]))
        errors = censored_cases(truth, events, alive, at)
    hazards = np.zeros(len(of))
    return Outcomes(kind, np.arange(len(of)), of, truth, events, estimates, hazards, errors)


@pytest.mark.parametrize("metric", ORACLES)
def test_a_metric_and_each_value_without_a_patient_are_scikit_learns(metric):
    outcomes = drawn(0)
    found = left_out(metric, outcomes)
    assert found.value == pytest.approx(ORACLES[metric](outcomes.truth, outcomes.estimates))
    for patient in (0, 7, 39):
        rest = outcomes.chosen(outcomes.patients != patient)
        without = ORACLES[metric](rest.truth, rest.estimates)
        assert found.without[patient] == pytest.approx(without)


def test_a_c_index_and_each_value_without_a_patient_are_those_of_lifelines():
    outcomes = drawn(3, "time")
    one_each = outcomes.chosen(np.arange(len(outcomes.cases)) < 40)
    found = left_out("c-index", one_each)
    index = concordance_index(one_each.truth, -one_each.estimates, one_each.events)
    assert found.value == pytest.approx(index)
    rest = one_each.chosen(one_each.patients != 11)
    without = concordance_index(rest.truth, -rest.estimates, rest.events)
    assert found.without[11] == pytest.approx(without)


@pytest.mark.parametrize(
    ("metric", "kind"),
    [("mae", "number"), ("r2", "number"), ("c-index", "time"), ("brier", "time")],
)
def test_its_interval_holds_the_truth_about_as_often_as_it_says(metric, kind):
    truth = np.mean([left_out(metric, drawn(s, kind, patients=60)).value for s in range(400)])
    found = [outcome_interval(metric, drawn(s, kind, patients=60)) for s in range(400, 600)]
    # Weights for censoring are estimated, which the interval leaves out: it is a little wide.
    most = 1.0 if metric == "brier" else 0.985
    assert 0.90 <= np.mean([one.low <= truth <= one.high for one in found]) <= most


def test_events_beyond_the_expected_ones_are_zero_of_the_true_hazard_as_often_as_it_says():
    held = []
    for seed in range(200):
        generator = np.random.default_rng(seed)
        until, last = generator.exponential(1000, 80), generator.uniform(200, 3000, 80)
        at, events = np.array([400.0, 1200.0]), until <= last
        times, events = at_horizon(np.minimum(until, last), events, 1200.0)
        errors = censored_cases(times, events, np.tile(np.exp(-at / 1000), (80, 1)), at)
        each, none = np.arange(80), np.zeros(80)
        found = beyond_expected(Outcomes("time", each, each, times, events, none, none, errors))
        held.append(found.low <= 0 <= found.high)
    assert 0.90 <= np.mean(held) <= 0.99


@pytest.mark.parametrize("kind", ["number", "time"])
def test_a_better_model_gains_and_the_same_model_does_not(kind):
    worse, better = drawn(5, kind, noise=30.0), drawn(5, kind, noise=2.0)
    gains = dict(outcome_gains(better, worse))
    gains.pop("brier", None)  # of hazards that are not calibrated
    assert all(gain.low > 0 for gain in gains.values())
    same = dict(outcome_gains(better, better))
    assert all(gain.value == 0 for gain in same.values())


def test_three_patients_who_all_agree_say_nothing_of_how_patients_differ():
    right = drawn(5, "time", noise=2.0, patients=3).chosen(np.arange(3))
    right = replace(right, events=np.ones(3) > 0, truth=np.arange(3.0), estimates=-np.arange(3.0))
    wrong = replace(right, estimates=np.arange(3.0))
    assert left_out("c-index", right).value == 1
    assert left_out("c-index", wrong).value == 0
    assert "c-index" not in dict(outcome_gains(right, wrong))
