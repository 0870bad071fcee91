"""Brier scores weighted for censoring: by the formula of Graf et al. 1999 on lifelines' curves."""

import numpy as np
import pytest
from lifelines import ExponentialFitter, KaplanMeierFitter
from tests.unit.common.metrics.test_survival import TIMES, death_study

from wardround.common.errors import InputError
from wardround.common.metrics.censoring import (
    censored_cases,
    censored_errors,
    censoring_weights,
    horizon_error,
    integrated,
)
from wardround.common.metrics.records import from_arrays, to_arrays
from wardround.common.metrics.sums import MetricSums, merge, summarise
from wardround.common.metrics.survival import at_horizon, count_survival, time_edges
from wardround.common.study.loading import with_changes

EDGES = time_edges(death_study())


def patients(seed: int, count: int, followed: float = 2500.0) -> tuple[np.ndarray, ...]:
    """Return times, events and the probability of no event at each edge; no two times are alike."""
    generator = np.random.default_rng(seed)
    rates = np.exp(generator.normal(0, 0.7, count)) / 900
    until = generator.exponential(1 / rates)
    last = generator.uniform(50, followed, count)
    alive = np.exp(-rates[:, None] * EDGES * generator.uniform(0.6, 1.6, (count, 1)))
    return np.minimum(until, last), until <= last, alive


def graf(times: np.ndarray, events: np.ndarray, alive: np.ndarray) -> np.ndarray:
    """Return the Brier score at each edge, a patient and a time after the other."""
    curve = KaplanMeierFitter().fit(times, ~events)  # of the ends of follow-up
    before, then = curve.predict(times - 1e-9).to_numpy(), curve.predict(EDGES).to_numpy()
    found = []
    for place, at in enumerate(EDGES):
        total = 0.0
        for time, event, said, kept in zip(times, events, alive[:, place], before, strict=True):
            if event and time <= at:
                total += said**2 / kept
            elif time > at:
                total += (1 - said) ** 2 / then[place]
        found.append(total / len(times))
    return np.array(found)


def sums_of(times: np.ndarray, events: np.ndarray, alive: np.ndarray) -> MetricSums:
    hazards = -np.log(alive[:, -1])
    counted = count_survival(times, events, 1 - alive.mean(axis=1), hazards, EDGES, alive)
    return MetricSums(len(times), 0.0, counted)


def values(sums: MetricSums) -> dict[str, float]:
    found = summarise(sums, death_study())
    return {f"{one.metric} {one.class_name}".strip(): one.value for one in found}


@pytest.mark.parametrize("seed", range(3))
def test_of_one_site_the_score_at_each_time_is_grafs(seed):
    times, events, alive = patients(seed, 150)
    expected = graf(times, events, alive)

    found = censored_errors(*at_horizon(times, events, TIMES[-1]), alive, EDGES)

    assert found.brier / found.told == pytest.approx(expected, rel=1e-9)
    said = values(sums_of(times, events, alive))
    for time in TIMES:
        place = int(np.flatnonzero(time == EDGES)[0])
        assert said[f"brier {time:.4g} days"] == pytest.approx(expected[place], rel=1e-9)
    whole = np.trapezoid(np.append(0, expected), np.append(0, EDGES)) / TIMES[-1]
    assert said["brier"] == pytest.approx(whole, rel=1e-9)


def test_of_several_sites_it_is_the_mean_over_patients_of_each_sites_own():
    sites = [patients(seed, 80 + 40 * seed, 1800.0 + 700 * seed) for seed in range(3)]
    together = sums_of(*sites[0])
    for site in sites[1:]:
        together = merge(together, sums_of(*site))
    counts = np.array([len(site[0]) for site in sites])
    each = np.array([graf(*site) for site in sites])

    found = together.measured

    assert found.brier / found.told == pytest.approx((counts @ each) / counts.sum(), rel=1e-9)


def test_weights_stand_for_everybody_and_undo_that_the_ill_are_followed_for_longer():
    times, events, _ = patients(1, 300)
    weights = censoring_weights(*at_horizon(times, events, TIMES[-1]), EDGES)
    assert weights.known.all()
    assert weights.weight.sum(axis=0) == pytest.approx(np.full(len(EDGES), 300.0))
    # The weighted share with an event is that of the Kaplan-Meier curve of the event.
    curve = KaplanMeierFitter().fit(times, events)
    share = (weights.weight * weights.ended).sum(axis=0) / 300
    assert share == pytest.approx([1 - float(curve.predict(at)) for at in EDGES], rel=1e-9)


def test_at_one_time_an_event_comes_before_an_end_of_follow_up():
    # By hand: at 5 one of four has the event, one of the three that are left is lost: G = 2 / 3.
    times, events = np.array([5.0, 5.0, 9.0, 20.0]), np.array([True, False, True, False])
    weights = censoring_weights(times, events, np.array([4.0, 6.0, 10.0]))
    assert (
        pytest.approx(np.array([[1, 1, 1, 1], [1, 0, 1.5, 1.5], [1, 0, 1.5, 1.5]]))
        == weights.weight.T
    )


def test_a_site_that_follows_nobody_so_far_says_nothing_of_that_time():
    times, events, alive = patients(4, 60, 700.0)
    short = sums_of(times, events, alive)
    told = short.measured.told
    assert told[0] == 60
    assert told[-1] == 0
    assert short.measured.brier[-1] == 0
    long = sums_of(*patients(5, 60))
    both = values(merge(short, long))
    last = f"brier {TIMES[-1]:.4g} days"
    assert both[last] == pytest.approx(values(long)[last])
    assert both["horizon-calibration-error"] == pytest.approx(
        values(long)["horizon-calibration-error"]
    )
    assert last not in values(short)


def test_the_true_hazard_has_the_least_score_and_is_calibrated_at_the_horizon():
    generator = np.random.default_rng(7)
    until, last = generator.exponential(1200, 4000), generator.uniform(200, 3000, 4000)
    times, events = np.minimum(until, last), until <= last
    rate = ExponentialFitter().fit(times, events).lambda_
    said = {}
    for wrong in (0.5, 1.0, 2.0):
        alive = np.tile(np.exp(-EDGES / rate * wrong), (4000, 1))
        said[wrong] = values(sums_of(times, events, alive))
    assert said[1.0]["brier"] < min(said[0.5]["brier"], said[2.0]["brier"])
    assert said[1.0]["horizon-calibration-error"] < 0.03
    assert said[2.0]["horizon-calibration-error"] > 0.1


def test_cases_add_up_to_the_sums_of_their_site():
    times, events, alive = patients(2, 90)
    found = censored_errors(*at_horizon(times, events, TIMES[-1]), alive, EDGES)
    cases = censored_cases(*at_horizon(times, events, TIMES[-1]), alive, EDGES)
    whole = integrated(found.brier, found.told, EDGES)
    assert cases.brier.sum() / cases.told.sum() == pytest.approx(whole)
    assert cases.told == pytest.approx(np.ones(90))
    assert horizon_error(found.horizon)[1] == 90


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("told", (0,), 99),
        ("brier", (3,), 99.0),
        ("horizon", (0, 0), 99.0),
        ("horizon", (2, 0), 99.0),
    ],
)
def test_sums_that_no_patients_can_give_are_refused(name, place, value):
    arrays = {key: array.copy() for key, array in to_arrays(sums_of(*patients(0, 80))).items()}
    assert from_arrays(arrays, death_study()).examinations == 80
    arrays[name][place] = value
    with pytest.raises(InputError, match="the metric array"):
        from_arrays(arrays, death_study())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training.loss": "cox"}, "needs probabilities"),
        (
            {
                "privacy.mode": "patient",
                "privacy.noise_multiplier": 1.0,
                "privacy.sampling_rate": 0.1,
                "model.normalisation": "none",
            },
            "cannot be bounded: choose 'c-index'",
        ),
    ],
)
def test_a_score_that_is_not_told_cannot_steer(changes, words):
    with pytest.raises(InputError, match=words):
        with_changes(death_study(), {"evaluation.metric": "brier", **changes})
