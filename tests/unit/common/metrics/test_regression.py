"""A regression's metrics from sums are those of scikit-learn on all predictions together."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from wardround.common.errors import InputError
from wardround.common.metrics.noised.decoding import summarise_noised
from wardround.common.metrics.noised.encoding import NoisedSums, encode_loss, scaled
from wardround.common.metrics.noised.encoding import encode_estimates as encoded
from wardround.common.metrics.records import from_arrays, to_arrays
from wardround.common.metrics.regression import BINS, calibration_line, count_estimates
from wardround.common.metrics.sums import MetricSums, merge, summarise
from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

LOW, HIGH = 20.0, 110.0


def age_study(**training: object) -> Study:
    return parse_study(
        {
            "study": {"name": "age", "task": "regression"},
            "data": {
                "kind": "table",
                "covariates": [{"name": "a"}],
                "outcome": {"name": "age", "unit": "years", "range": [LOW, HIGH]},
            },
            "model": {"network": "mlp"},
            "training": training,
        }
    )


def numbers(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.uniform(30, 90, count)
    return truth, truth * 0.7 + 20 + generator.normal(0, 6, count)


def sums_of(truth: np.ndarray, found: np.ndarray) -> MetricSums:
    shares = [(values - LOW) / (HIGH - LOW) for values in (truth, found)]
    return MetricSums(len(truth), 0.0, count_estimates(*shares))


def test_three_sites_sums_give_the_metrics_of_all_patients_together():
    study = age_study()
    sites = [numbers(seed, 40 + 10 * seed) for seed in range(3)]
    together = sums_of(*sites[0])
    for site in sites[1:]:
        together = merge(together, sums_of(*site))
    truth, found = (np.concatenate([site[side] for site in sites]) for side in (0, 1))

    values = {value.metric: value for value in summarise(together, study)}

    assert values["mae"].value == pytest.approx(mean_absolute_error(truth, found), rel=1e-9)
    assert values["rmse"].value == pytest.approx(root_mean_squared_error(truth, found), rel=1e-9)
    assert values["r2"].value == pytest.approx(r2_score(truth, found), rel=1e-9)
    line = calibration_line(together.measured, together.examinations, study)  # type: ignore[arg-type]
    fit = LinearRegression().fit(found[:, None], truth)
    assert line.slope == pytest.approx(fit.coef_[0], rel=1e-8)
    assert line.intercept == pytest.approx(fit.intercept_, rel=1e-8)
    bins = np.floor((found - LOW) / (HIGH - LOW) * BINS).astype(int)
    off = [abs((found - truth)[bins == one].sum()) for one in np.unique(bins)]
    assert values["calibration-error"].value == pytest.approx(sum(off) / len(truth), rel=1e-9)


def test_the_errors_of_mae_and_rmse_are_those_of_other_draws_of_patients():
    study = age_study()
    drawn = [summarise(sums_of(*numbers(seed, 200)), study) for seed in range(300)]
    for metric in ("mae", "rmse"):
        values = [value for one in drawn for value in one if value.metric == metric]
        spread = np.std([value.value for value in values])
        assert np.mean([value.standard_error for value in values]) == pytest.approx(spread, rel=0.1)


def test_an_estimate_beyond_the_range_is_cut_to_it():
    sums = sums_of(np.array([100.0, 30.0]), np.array([1000.0, -1000.0]))
    values = {value.metric: value.value for value in summarise(sums, age_study())}
    assert values["mae"] == pytest.approx(10)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("moments", 0, 1e3),  # more distance than there are patients
        ("moments", 1, 0.0),  # no squared distance, though distances
        ("moments", 7, 0.0),  # a product that does not fit the distances
        ("binned", 3, 7),
        ("binned_truth", 12, 0.0),
    ],
)
def test_sums_that_no_patients_can_give_are_refused(name, place, value):
    arrays = to_arrays(sums_of(*numbers(0, 50)))
    arrays = {key: array.copy() for key, array in arrays.items()}
    assert from_arrays(arrays, age_study()).examinations == 50
    arrays[name][place] = value

    with pytest.raises(InputError, match="the metric array"):
        from_arrays(arrays, age_study())


def test_sums_without_noise_say_in_a_private_study_what_they_say_in_another():
    study, (truth, found) = age_study(), numbers(1, 200)
    shares = [(values - LOW) / (HIGH - LOW) for values in (truth, found)]
    rows = np.concatenate([encode_loss(np.full(200, 0.5)), encoded(*shares)], axis=1)
    vectors = scaled(rows, study)

    private = {v.metric: v.value for v in summarise_noised(NoisedSums(vectors.sum(0)), study)}

    plain = {v.metric: v.value for v in summarise(sums_of(truth, found), study)}
    for metric in ("mae", "rmse", "r2"):
        assert private[metric] == pytest.approx(plain[metric], rel=1e-6)


def test_no_patient_moves_a_noised_sum_by_more_than_one():
    study = age_study()
    extremes = np.array([[y, p] for y in (0, 0.5, 1) for p in (-9, 0, 0.5, 1, 9, np.nan)])
    rows = np.concatenate([encode_loss(np.full(len(extremes), 9.0)), encoded(*extremes.T)], axis=1)
    # The encoding itself is within the bound: nothing has to be shortened after it.
    assert np.linalg.norm(rows * _scales(study), axis=1).max() <= 1 + 1e-12
    assert np.linalg.norm(scaled(rows, study), axis=1).max() <= 1 + 1e-12


def _scales(study: Study) -> np.ndarray:
    from wardround.common.metrics.noised.encoding import blocks_of

    return np.concatenate([np.full(block.length, block.scale) for block in blocks_of(study)])
