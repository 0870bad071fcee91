"""Metrics of numbers and times with intervals whose unit is the patient.

Each patient is left out once, with all its examinations, and the metric computed of the others: the
jackknife (Efron and Stein 1981). The same values of two models on the same patients give the
interval of their difference. Weights for censoring stay those of all patients: that they are
estimated makes a Brier score a little surer than its interval says.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wardround.common.statistics.interval import (
    Interval,
    log_interval,
    score_interval,
    t_interval,
    unknown_interval,
    unless_all_agree,
)
from wardround.common.study.registry import METRICS
from wardround.simulations.run_files.folder import ALL_SITES
from wardround.simulations.run_files.outcomes import Outcomes, outcomes_together

OF_NUMBERS, OF_TIMES = ("mae", "rmse", "r2"), ("c-index", "brier")
_Floats = NDArray[np.float64]
_ALL_TOLD = 1 - 1e-9  # a hospital knows of the horizon what it knows of all times before
_CHUNK = 1_000  # examinations that are compared with all others at once
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """A metric of P patients.

    Attributes:
        value: NaN where it is not defined.
        without: ``(P,)`` the metric without each patient, by its number.
    """

    value: float
    without: _Floats

    @property
    def influence(self) -> _Floats:
        """``(P,)`` by how much each patient moves the value, to first order; their sum is 0."""
        count = len(self.without)
        found: _Floats = (self.without.mean() - self.without) * (count - 1) / max(1, count)
        return found

    @property
    def standard_error(self) -> float:
        """The jackknife's; NaN of fewer than two patients."""
        count = len(self.without)
        if count < 2:
            return math.nan
        return math.sqrt(float((self.influence**2).sum()) * count / (count - 1))


def metrics_of(outcomes: Outcomes) -> tuple[str, ...]:
    """Return what can be measured; without absolute hazards there is no Brier score."""
    if outcomes.kind != "time":
        return OF_NUMBERS
    return OF_TIMES if outcomes.errors.told.any() else OF_TIMES[:1]


def left_out(metric: str, outcomes: Outcomes) -> LeftOut:
    """Return a metric, and what it is without each patient."""
    patients = np.unique(outcomes.patients, return_inverse=True)[1]
    if metric == "c-index":
        sums = _pairs(outcomes, patients)
        return LeftOut(_ratio(sums.sum(axis=0) / 2), _ratios(sums.sum(axis=0) / 2 - sums))
    if metric == "brier":
        both = np.stack([outcomes.errors.brier, outcomes.errors.told], axis=1)
        return _mean_left_out(_of_patients(both, patients))
    off = outcomes.estimates - outcomes.truth
    columns = np.stack(
        [np.ones(len(off)), np.abs(off), off**2, outcomes.truth, outcomes.truth**2], axis=1
    )
    each = _of_patients(columns, patients)
    total = each.sum(axis=0)
    return LeftOut(float(_of_numbers(metric, total[None])[0]), _of_numbers(metric, total - each))


def beyond_expected(outcomes: Outcomes) -> Interval:
    """Return the share of patients with an event by the horizon, less what the model expected.

    The share is weighted for censoring; where a hospital follows nobody so far its patients do not
    count. 0 is best (calibration in the large).
    """
    patients, errors = np.unique(outcomes.patients, return_inverse=True)[1], outcomes.errors
    known = (errors.told >= _ALL_TOLD).astype(np.float64)
    off = errors.weight * outcomes.events - (1 - errors.alive)
    found = _mean_left_out(_of_patients(np.stack([off * known, known], axis=1), patients))
    count = len(found.without)
    if math.isnan(found.value) or math.isnan(found.standard_error):
        return unknown_interval(found.value, count)
    return t_interval(found.value, found.standard_error, count - 1, count)


def outcome_interval(metric: str, outcomes: Outcomes) -> Interval:
    """Return a metric with its 95 % interval."""
    found = left_out(metric, outcomes)
    count, error = len(found.without), found.standard_error
    if math.isnan(found.value) or math.isnan(error):
        return unknown_interval(found.value, count)
    entry = METRICS[metric]
    make = t_interval
    if entry.in_unit_interval:
        make = score_interval
    elif not entry.higher_is_better:
        make = log_interval
    interval = make(found.value, error, count - 1, count)
    # R2 has no least value, and 1 is its largest.
    return replace(interval, high=min(interval.high, 1.0)) if entry.higher_is_better else interval


def outcome_intervals(
    given: Mapping[Key, Outcomes],
) -> dict[tuple[str, str, str, str], Interval]:
    """Return the intervals of all test values, of every model at every site and of all together.

    Args:
        given: By (model, site, split).
    """
    test = {(model, site): one for (model, site, split), one in given.items() if split == "test"}
    held: dict[str, list[Outcomes]] = {}
    for (model, _), one in test.items():
        held.setdefault(model, []).append(one)
    sites = len({site for _, site in test})
    whole = {
        (model, ALL_SITES): outcomes_together(parts)
        for model, parts in held.items()
        if len(parts) == sites
    }
    return {
        (model, site, metric, ""): outcome_interval(metric, one)
        for (model, site), one in {**test, **whole}.items()
        for metric in metrics_of(one)
    }


def outcome_gains(first: Outcomes, second: Outcomes) -> Iterator[tuple[str, Interval]]:
    """Yield metric and gain of the first model over the second on the same examinations.

    A gain is positive where the first is better, whatever the metric's direction. One whose error
    cannot be told is absent.
    """
    for metric in metrics_of(first):
        one, other = left_out(metric, first), left_out(metric, second)
        sign = 1 if METRICS[metric].higher_is_better else -1
        gain = LeftOut(sign * (one.value - other.value), sign * (one.without - other.without))
        if math.isnan(gain.value) or not np.isfinite(gain.without).all():
            continue
        count, error = len(gain.without), gain.standard_error
        found = unless_all_agree(t_interval(gain.value, error, count - 1, count))
        if found.is_known:
            yield metric, found


def _mean_left_out(each: _Floats) -> LeftOut:
    """Return a mean and what it is without each patient, of ``(P, 2)`` sums and counts."""
    total = each.sum(axis=0)
    return LeftOut(_ratio(total), _ratios(total - each))


def _of_patients(columns: _Floats, patients: NDArray[np.int64]) -> _Floats:
    """Return ``(P, C)``: what each patient's examinations add up to, of ``(N, C)``."""
    each = np.zeros((int(patients.max(initial=-1)) + 1, columns.shape[1]))
    np.add.at(each, patients, columns)
    return each


def _of_numbers(metric: str, sums: _Floats) -> _Floats:
    """Return ``(M,)`` of ``(M, 5)`` sums."""
    count = np.where(sums[:, 0] > 0, sums[:, 0], np.nan)
    mean = sums / count[:, None]
    if metric == "mae":
        return np.asarray(mean[:, 1])
    if metric == "rmse":
        return np.asarray(np.sqrt(np.maximum(mean[:, 2], 0.0)))
    spread = mean[:, 4] - mean[:, 3] ** 2
    known = np.where(spread > 1e-12 * np.maximum(1.0, mean[:, 4]), spread, np.nan)
    return np.asarray(1 - mean[:, 2] / known)


def _pairs(outcomes: Outcomes, patients: NDArray[np.int64]) -> _Floats:
    """Return ``(P, 2)``: each patient's pairs in the right order, and its comparable ones.

    A pair counts at both its patients. Two examinations of one patient are no pair.
    """
    size = int(patients.max(initial=-1)) + 1
    found = np.zeros((size, 2))
    times, events, risks = outcomes.truth, outcomes.events, outcomes.estimates
    which = np.flatnonzero(events)
    for some in np.array_split(which, max(1, math.ceil(len(which) / _CHUNK))):
        first = times[some, None]
        later = (times > first) | ((times == first) & ~events)
        later &= patients[some, None] != patients
        right = later * ((risks[some, None] > risks) + 0.5 * (risks[some, None] == risks))
        for place, pairs in enumerate((right, later.astype(float))):
            np.add.at(found[:, place], patients[some], pairs.sum(axis=1))
            np.add.at(found[:, place], patients, pairs.sum(axis=0))
    return found


def _ratio(pair: _Floats) -> float:
    return float(pair[0] / pair[1]) if pair[1] > 0 else math.nan


def _ratios(pairs: Sequence[_Floats] | _Floats) -> _Floats:
    return np.array([_ratio(pair) for pair in pairs])
