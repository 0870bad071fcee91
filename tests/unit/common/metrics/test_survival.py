"""The C-index from sums is that of lifelines on all patients together, within its error bound."""

import numpy as np
import pytest
from lifelines.utils import concordance_index

from wardround.common.errors import InputError
from wardround.common.metrics.noised.decoding import summarise_noised as summarised
from wardround.common.metrics.noised.encoding import (
    NoisedSums,
    encode_follow_up,
    encode_loss,
    scaled,
)
from wardround.common.metrics.records import from_arrays, to_arrays
from wardround.common.metrics.sums import MetricSums, merge, summarise
from wardround.common.metrics.survival import at_horizon, count_survival, exact_pairs, time_edges
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

TIMES = (200.0, 400.0, 800.0, 1600.0)


def death_study() -> Study:
    return parse_study(
        {
            "study": {"name": "death", "task": "survival"},
            "data": {
                "kind": "table",
                "covariates": [{"name": "a"}],
                "outcome": {"name": "death", "unit": "days", "times": list(TIMES)},
            },
            "model": {"network": "mlp"},
        }
    )


def patients(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return times, events and risks; times are whole days, so that some are tied."""
    generator = np.random.default_rng(seed)
    risks = generator.beta(2, 3, count)
    until = generator.exponential(900 * np.exp(2 - 4 * risks))
    followed = generator.uniform(50, 2500, count)
    return np.minimum(until, followed).round(), until <= followed, risks


def sums_of(times, events, risks) -> MetricSums:
    counted = count_survival(times, events, risks, np.zeros(len(times)), time_edges(death_study()))
    return MetricSums(len(times), 0.0, counted)


def c_index(sums: MetricSums):
    return next(v for v in summarise(sums, death_study()) if v.metric == "c-index")


def oracle(times, events, risks) -> float:
    times, events = at_horizon(times, events, TIMES[-1])
    return float(concordance_index(times, -risks, events))


@pytest.mark.parametrize("seed", range(5))
def test_of_one_site_it_is_exact_with_ties_of_times_and_of_risks(seed):
    times, events, risks = patients(seed, 300)
    risks = risks.round(1 + seed % 2)  # many are tied

    value = c_index(sums_of(times, events, risks))

    assert value.value == pytest.approx(oracle(times, events, risks), abs=1e-12)
    assert value.error_bound == 0


@pytest.mark.parametrize("seed", range(5))
def test_of_several_sites_it_is_that_of_all_patients_within_the_error_bound(seed):
    sites = [patients(10 * seed + site, 60 + 80 * site) for site in range(4)]
    together = sums_of(*sites[0])
    for site in sites[1:]:
        together = merge(together, sums_of(*site))
    everybody = [np.concatenate(parts) for parts in zip(*sites, strict=True)]

    value = c_index(together)

    off = abs(value.value - oracle(*everybody))
    assert off <= value.error_bound + 1e-12
    assert off < 0.005
    assert value.error_bound < 0.08


def test_the_order_of_merging_does_not_matter():
    a, b, c = (sums_of(*patients(seed, 50)) for seed in range(3))
    one, other = c_index(merge(merge(a, b), c)), c_index(merge(a, merge(c, b)))
    assert one.value == pytest.approx(other.value, abs=1e-12)


def test_its_standard_error_is_that_of_other_draws_of_patients():
    drawn = [c_index(sums_of(*patients(seed, 200))) for seed in range(200)]
    spread = np.std([value.value for value in drawn])
    assert np.mean([value.standard_error for value in drawn]) == pytest.approx(spread, rel=0.15)


def test_a_tie_of_an_event_and_an_end_of_follow_up_is_compared():
    pairs = exact_pairs(np.array([5.0, 5.0]), np.array([True, False]), np.array([0.9, 0.1]))
    assert pairs.tolist() == [1, 1]
    both = exact_pairs(np.array([5.0, 5.0]), np.array([True, True]), np.array([0.9, 0.1]))
    assert both.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("table", (0, 0, 0), 7),
        ("table", (1, -1, 0), 1),
        ("exact", (0,), 1e6),
        ("own", (1,), 1e9),
        ("observed", (0,), 1000),
    ],
)
def test_sums_that_no_patients_can_give_are_refused(name, place, value):
    arrays = {key: array.copy() for key, array in to_arrays(sums_of(*patients(0, 80))).items()}
    assert from_arrays(arrays, death_study()).examinations == 80
    arrays[name][place] = value

    with pytest.raises(InputError, match="the metric array"):
        from_arrays(arrays, death_study())


def test_a_private_measurement_without_noise_is_near_the_exact_index():
    study, (times, events, risks) = death_study(), patients(3, 400)
    coded = encode_follow_up(times, events, risks, study)
    vectors = scaled(np.concatenate([encode_loss(np.ones(400)), coded], axis=1), study)

    found = {v.metric: v for v in summarised(NoisedSums(vectors.sum(0)), study)}

    assert np.linalg.norm(vectors, axis=1).max() <= 1 + 1e-12
    assert found["c-index"].value == pytest.approx(oracle(times, events, risks), abs=0.03)
    off = abs(found["c-index"].value - oracle(times, events, risks))
    assert off <= found["c-index"].error_bound


def test_where_nobody_has_an_event_there_is_no_index():
    times = np.array([10.0, 20.0])
    value = c_index(sums_of(times, np.zeros(2, dtype=bool), np.array([0.2, 0.4])))
    assert np.isnan(value.value)
    assert value.support == 0
