"""A metric of one model on some patients, with an interval whose unit is the patient.

The intervals are those of ``common/statistics``. Beside each stands the influence of each
examination: by how much the metric moves with it, to first order. With these the difference of two
groups has an interval too, also where some patients, or all of them, are on both sides.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from wardround.common.statistics.case_metrics import (
    answer_columns,
    answer_ratios,
    answers_of_scores,
    case_columns,
    case_ratios,
)
from wardround.common.statistics.clustered import (
    metric_interval,
    of_patients,
    patient_sums,
    satterthwaite,
)
from wardround.common.statistics.clustered_auroc import (
    auroc_interval,
    class_weights,
    placement_sums_of_scores,
)
from wardround.common.statistics.interval import (
    Interval,
    t_interval,
    two_sided_p,
    unknown_interval,
)
from wardround.simulations.run_files.predictions import MEASURES, Masks, Scores

_Floats = NDArray[np.float64]
_CALIBRATION_BINS = 10
_ROUNDING = 1e-12
_HALF = 0.5  # above which score a label of a multi-label study is present
_COLUMNS = {"dice": "dice", "hd95": "hd95", "surface-dice": "surface_dice"}
_Values = tuple[float, _Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """A metric with its interval, and by how much each of N examinations moves it.

    Attributes:
        each: ``(N,)``; their sum is 0.
        patients: ``(N,)`` whose examination each is.
    """

    interval: Interval
    each: _Floats
    patients: NDArray[np.int64]

    @property
    def value(self) -> float:
        """NaN where it is not defined."""
        return self.interval.value


def measure(metric: str, answers: Scores | Masks, multi_label: bool = False) -> Measure | None:
    """Return a metric as the study's own sums define it; None where it is not known here.

    Args:
        metric: A key of METRICS.
        answers: Whose ``patients`` tell all patients apart, also those of several sites.
        multi_label: Whether an examination may be of several classes.
    """
    if isinstance(answers, Masks):
        if metric not in _COLUMNS:
            return None
        values = getattr(answers, _COLUMNS[metric])
        _, each = _mean_of_classes(values)
        interval = _of_cases(values, answers.patients, bounded=metric != "hd95")
        return Measure(interval, each, answers.patients)
    known = _OF_LABELS if multi_label else _OF_CLASSES
    if metric not in known:
        return None
    _, each = known[metric](answers.scores, answers.labels)
    interval = (
        _of_areas(answers, multi_label)
        if metric == "auroc"
        else _of_answers(metric, answers, multi_label)
    )
    return Measure(interval, each, answers.patients)


def difference(first: Measure, second: Measure) -> Interval:
    """Return by how much the first value is larger, with its interval.

    The variance is the sum of both less twice their covariance over the patients of both: of two
    groups nobody, of two models that answered the same patients all of them.
    """
    a, b = first.interval, second.interval
    patients = np.union1d(first.patients, second.patients)
    value, count = a.value - b.value, len(patients)
    if math.isnan(value) or math.isnan(a.standard_error) or math.isnan(b.standard_error):
        return unknown_interval(value, count)
    sides = [_totals(one, patients) for one in (first, second)]
    scattered = [math.sqrt(float((side**2).sum())) for side in sides]
    together = float((sides[0] * sides[1]).sum())
    # Of two models that answered alike the difference has little error, whatever each one has.
    alike = together / (scattered[0] * scattered[1]) if all(scattered) else 0.0
    errors = a.standard_error, b.standard_error
    variance = errors[0] ** 2 + errors[1] ** 2 - 2 * alike * errors[0] * errors[1]
    freedom = satterthwaite(
        np.array([errors[0] ** 2, errors[1] ** 2]), np.array([a.freedom + 1, b.freedom + 1])
    )
    # Where no patient was answered differently, one of the others may be: half a patient's share.
    error = math.sqrt(variance) if variance > _ROUNDING else 0.5 / max(1, count)
    return t_interval(value, error, freedom, count)


def p_value(found: Interval) -> float:
    """Return the two-sided p-value of a difference of none; 1 where it cannot be told."""
    return two_sided_p(found.value, found.standard_error, found.freedom)


def _totals(one: Measure, patients: NDArray[np.int64]) -> _Floats:
    """Return ``(P,)`` influences of each patient, 0 of those who are not on this side."""
    places = np.searchsorted(patients, one.patients)
    return np.asarray(np.bincount(places, weights=one.each, minlength=len(patients)))


def _of_cases(values: _Floats, patients: NDArray[np.int64], bounded: bool) -> Interval:
    ratios = case_ratios((~np.isnan(values)).sum(axis=0), bounded)
    return metric_interval(patient_sums(of_patients(case_columns(values), patients)), ratios)


def _of_answers(metric: str, answers: Scores, multi_label: bool) -> Interval:
    called = answers_of_scores(answers.scores, multi_label)
    columns = answer_columns(called, answers.labels, multi_label)
    truth = columns[:, -columns.shape[1] // 3 :].sum(axis=0)
    sums = patient_sums(of_patients(columns, answers.patients))
    return metric_interval(sums, answer_ratios(metric, truth, multi_label))


def _of_areas(answers: Scores, multi_label: bool) -> Interval:
    binary = answers.scores.shape[1] == 2 and not multi_label
    readings = slice(1, None) if binary else slice(None)
    sums = placement_sums_of_scores(
        answers.scores[:, readings], answers.labels[:, readings], answers.patients
    )
    return auroc_interval(sums, class_weights(sums))


def together(parts: Sequence[Scores]) -> Scores:
    """Return the examinations of several sites as one, their patients told apart."""
    return Scores(
        np.concatenate([part.cases for part in parts]),
        _apart([part.patients for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def masks_together(parts: Sequence[Masks]) -> Masks:
    """Return the examinations of several sites as one, their patients told apart."""

    def joined(name: str) -> _Floats:
        return np.concatenate([getattr(part, name) for part in parts])

    return Masks(
        np.concatenate([part.cases for part in parts]),
        _apart([part.patients for part in parts]),
        *(joined(name) for name in MEASURES),
    )


def chosen(answers: Scores | Masks, some: NDArray[np.bool_]) -> Scores | Masks:
    """Return some of the examinations."""
    if isinstance(answers, Scores):
        return Scores(
            answers.cases[some], answers.patients[some], answers.scores[some], answers.labels[some]
        )
    return Masks(
        answers.cases[some],
        answers.patients[some],
        *(getattr(answers, name)[some] for name in MEASURES),
    )


def calibration_error(answers: Scores, multi_label: bool = False) -> float:
    """Return the expected calibration error over ten bins of equal width.

    Of two classes, that of the second one's score; of more, of the score of the class found
    (top-label); of several labels, the mean over labels. (Naeini et al., AAAI 2015.)
    """
    scores, labels = answers.scores, answers.labels
    if not len(scores):
        return math.nan
    if multi_label:
        every = [_gap(scores[:, k], labels[:, k]) for k in range(scores.shape[1])]
        return float(np.mean(every))
    if scores.shape[1] == 2:
        return _gap(scores[:, 1], labels[:, 1])
    best = scores.argmax(axis=1)
    rows = np.arange(len(scores))
    return _gap(scores[rows, best], labels[rows, best])


def _gap(score: _Floats, truth: NDArray[np.bool_]) -> float:
    place = np.minimum((score * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    said = np.bincount(place, weights=score, minlength=_CALIBRATION_BINS)
    found = np.bincount(place, weights=truth.astype(float), minlength=_CALIBRATION_BINS)
    return float(np.abs(said - found).sum() / len(score))


def _apart(patients: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    found, first = [], 0
    for part in patients:
        found.append(part + first)
        first += int(part.max(initial=-1)) + 1
    return np.concatenate(found)


def _area(score: _Floats, truth: NDArray[np.bool_]) -> _Values:
    """Return AUROC and influences from placement values (DeLong et al., Biometrics 44, 1988)."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    each = np.zeros(len(score))
    if not positives or not negatives:
        return math.nan, each
    ranks = stats.rankdata(score)
    own = np.zeros(len(score))
    own[truth], own[~truth] = stats.rankdata(score[truth]), stats.rankdata(score[~truth])
    above = (ranks - own)[truth] / negatives  # share of the negatives below each positive
    below = 1 - (ranks - own)[~truth] / positives
    value = float(above.mean())
    each[truth], each[~truth] = (above - value) / positives, (below - value) / negatives
    return value, each


def _auroc(scores: _Floats, labels: NDArray[np.bool_]) -> _Values:
    if scores.shape[1] == 2:
        return _area(scores[:, 1], labels[:, 1])
    return _auroc_of_labels(scores, labels)


def _auroc_of_labels(scores: _Floats, labels: NDArray[np.bool_]) -> _Values:
    parts = [_area(scores[:, k], labels[:, k]) for k in range(scores.shape[1])]
    return _mean(parts, len(scores))


def _mean(parts: Sequence[_Values], count: int) -> _Values:
    """Return the mean over what is defined."""
    defined = [part for part in parts if not math.isnan(part[0])]
    if not defined:
        return math.nan, np.zeros(count)
    value = sum(part[0] for part in defined) / len(defined)
    return value, np.sum([part[1] for part in defined], axis=0) / len(defined)


def _ratio(above: _Floats, below: _Floats) -> _Values:
    """Return the ratio of two sums, and influences; NaN where the second is 0."""
    total = float(below.sum())
    if total <= 0:
        return math.nan, np.zeros(len(below))
    value = float(above.sum()) / total
    return value, (above - value * below) / total


def _called(scores: _Floats) -> NDArray[np.bool_]:
    return np.asarray(scores.argmax(axis=1)[:, None] == np.arange(scores.shape[1]))


def _accuracy(scores: _Floats, labels: NDArray[np.bool_]) -> _Values:
    right = (_called(scores) & labels).any(axis=1).astype(float)
    return _ratio(right, np.ones(len(right)))


def _balanced(scores: _Floats, labels: NDArray[np.bool_]) -> _Values:
    right, truth = (_called(scores) & labels).astype(float), labels.astype(float)
    return _mean([_ratio(right[:, k], truth[:, k]) for k in range(labels.shape[1])], len(scores))


def _f1_of(called: NDArray[np.bool_], labels: NDArray[np.bool_]) -> _Values:
    """Return the mean F1 over the classes that occur."""
    parts = [
        _ratio(
            2 * (called[:, k] & labels[:, k]).astype(float),
            called[:, k].astype(float) + labels[:, k].astype(float),
        )
        for k in range(labels.shape[1])
        if labels[:, k].any()
    ]
    return _mean(parts, len(labels))


def _f1(scores: _Floats, labels: NDArray[np.bool_]) -> _Values:
    return _f1_of(_called(scores), labels)


def _label_accuracy(scores: _Floats, labels: NDArray[np.bool_]) -> _Values:
    right = np.asarray(((scores > _HALF) == labels).mean(axis=1), dtype=np.float64)
    return _ratio(right, np.ones(len(right)))


def _label_balanced(scores: _Floats, labels: NDArray[np.bool_]) -> _Values:
    called, parts = scores > _HALF, []
    for k in range(labels.shape[1]):
        truth, found = labels[:, k], called[:, k]
        sides = [
            _ratio((found & truth).astype(float), truth.astype(float)),
            _ratio((~found & ~truth).astype(float), (~truth).astype(float)),
        ]
        if not any(math.isnan(side[0]) for side in sides):
            parts.append(_mean(sides, len(labels)))
    return _mean(parts, len(labels))


def _label_f1(scores: _Floats, labels: NDArray[np.bool_]) -> _Values:
    return _f1_of(scores > _HALF, labels)


def _mean_of_classes(values: _Floats) -> _Values:
    """Return the mean over classes of the mean over the examinations that have a value."""
    parts = []
    for k in range(values.shape[1]):
        known = np.isfinite(values[:, k])
        parts.append(_ratio(np.where(known, values[:, k], 0.0), known.astype(float)))
    return _mean(parts, len(values))


_Rule = Callable[[_Floats, NDArray[np.bool_]], _Values]
_OF_CLASSES: Mapping[str, _Rule] = {
    "auroc": _auroc,
    "accuracy": _accuracy,
    "balanced-accuracy": _balanced,
    "f1": _f1,
}
_OF_LABELS: Mapping[str, _Rule] = {
    "auroc": _auroc_of_labels,
    "accuracy": _label_accuracy,
    "balanced-accuracy": _label_balanced,
    "f1": _label_f1,
}
