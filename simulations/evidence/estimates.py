"""A metric of one model on some patients, with an interval whose unit is the patient.

Each examination has an influence on the metric: by how much the metric moves with it, to first
order. Influences of a patient are added up before they are squared, so that ten images of one
patient are not ten patients. Of AUROC that is the clustered form of DeLong's variance (Obuchowski,
Biometrics 53, 1997); of means and ratios the usual linearised variance of clusters.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from wardround.simulations.run_files.predictions import Masks, Scores

_Floats = NDArray[np.float64]
_LEVEL = 0.95
_HALF = 0.5  # from which score on a label of a multi-label study is present
_CALIBRATION_BINS = 10
_Values = tuple[float, _Floats]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval; NaN where it cannot be told.

    Attributes:
        error: Its standard error.
        patients: On how many patients it stands.
        examinations: And how many examinations.
    """

    value: float
    low: float
    high: float
    error: float
    patients: int
    examinations: int


@dataclass(frozen=True, slots=True, eq=False)
class Influence:
    """A value, and by how much each of N examinations moves it.

    Attributes:
        each: ``(N,)``; their sum is 0.
        patients: ``(N,)`` whose examination each is.
        least: Patients on the smaller side: with a class or without it, for AUROC.
    """

    value: float
    each: _Floats
    patients: NDArray[np.int64]
    least: int

    @property
    def error(self) -> float:
        """The standard error; NaN of fewer than two patients."""
        _, place = np.unique(self.patients, return_inverse=True)
        count = int(place.max(initial=-1)) + 1
        if count < 2 or math.isnan(self.value):
            return math.nan
        totals = np.bincount(place, weights=self.each, minlength=count)
        return math.sqrt(count / (count - 1) * float((totals**2).sum()))

    @property
    def patient_count(self) -> int:
        """How many patients there are."""
        return len(np.unique(self.patients))


def measure(metric: str, answers: Scores | Masks, multi_label: bool = False) -> Influence | None:
    """Return a metric as the study's own sums define it; None where it is not known here.

    Args:
        metric: A key of METRICS.
        answers: Whose ``patients`` tell all patients apart, also those of several sites.
        multi_label: Whether an examination may be of several classes.
    """
    if isinstance(answers, Masks):
        column = {"dice": "dice", "hd95": "hd95", "surface-dice": "surface_dice"}.get(metric)
        if column is None:
            return None
        value, each = _mean_of_classes(getattr(answers, column))
        return Influence(value, each, answers.patients, len(np.unique(answers.patients)))
    known = _OF_LABELS if multi_label else _OF_CLASSES
    if metric not in known:
        return None
    value, each = known[metric](answers.scores, answers.labels)
    least = _least(answers) if metric == "auroc" else len(np.unique(answers.patients))
    return Influence(value, each, answers.patients, least)


def estimate(found: Influence, bounded: bool = True) -> Estimate:
    """Return a value with its interval, of Student's t with the patients less one.

    A value in [0, 1] has the interval on the scale of its logarithmic odds, so that it stays
    inside. At 0 or 1, where no patient differs, it reaches as far as an exact one (Clopper and
    Pearson, 1934) of the patients on the smaller side.

    Args:
        bounded: Whether the value lies in [0, 1].
    """
    error, value, patients = found.error, found.value, found.patient_count
    low = high = math.nan
    if not math.isnan(error):
        reach = float(stats.t.ppf((1 + _LEVEL) / 2, patients - 1))
        if not bounded:
            low, high = value - reach * error, value + reach * error
        elif 0 < value < 1 and error > 0:
            odds = math.log(value / (1 - value))
            width = min(reach * error / (value * (1 - value)), 700.0)
            low, high = _share(odds - width), _share(odds + width)
        else:
            far = ((1 - _LEVEL) / 2) ** (1 / max(1, found.least))
            low, high = (min(value, far), value) if value >= _HALF else (value, 1 - far)
    return Estimate(value, low, high, error, patients, len(found.each))


def difference(first: Influence, second: Influence) -> Estimate:
    """Return by how much the first value is larger, with its interval.

    The same patient may be on both sides, or all of them: then the comparison is paired.
    """
    both = Influence(
        first.value - second.value,
        np.concatenate([first.each, -second.each]),
        np.concatenate([first.patients, second.patients]),
        min(first.least, second.least),
    )
    # No difference has been seen without error: the half patient that was not seen is the least.
    floor = 0.5 / max(1, both.least) if both.error == 0 else 0.0
    error = max(both.error, floor)
    reach = float(stats.t.ppf((1 + _LEVEL) / 2, max(1, both.patient_count - 1)))
    spread = reach * error
    return Estimate(
        both.value, both.value - spread, both.value + spread, error, both.patient_count, len(both.each)
    )


def p_value(found: Estimate) -> float:
    """Return the two-sided p-value of a difference of none; 1 where it cannot be told."""
    if math.isnan(found.error) or found.error <= 0 or found.patients < 2:
        return 1.0
    return float(2 * stats.t.sf(abs(found.value) / found.error, found.patients - 1))


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
        *(joined(name) for name in ("dice", "hd95", "surface_dice", "truth_ml", "found_ml")),
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
        answers.dice[some],
        answers.hd95[some],
        answers.surface_dice[some],
        answers.truth_ml[some],
        answers.found_ml[some],
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


def _share(odds: float) -> float:
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0


def _least(answers: Scores) -> int:
    column = 1 if answers.labels.shape[1] == 2 else slice(None)
    labels = answers.labels[:, column].reshape(len(answers.labels), -1)
    sides = [
        len(np.unique(answers.patients[side]))
        for k in range(labels.shape[1])
        for side in (labels[:, k], ~labels[:, k])
    ]
    return min((side for side in sides if side), default=0)


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
        _ratio(2.0 * (called[:, k] & labels[:, k]), called[:, k].astype(float) + labels[:, k])
        for k in range(labels.shape[1])
        if labels[:, k].any()
    ]
    return _mean(parts, len(labels))


def _f1(scores: _Floats, labels: NDArray[np.bool_]) -> _Values:
    return _f1_of(_called(scores), labels)


def _label_accuracy(scores: _Floats, labels: NDArray[np.bool_]) -> _Values:
    right = ((scores >= _HALF) == labels).mean(axis=1)
    return _ratio(right, np.ones(len(right)))


def _label_balanced(scores: _Floats, labels: NDArray[np.bool_]) -> _Values:
    called, parts = scores >= _HALF, []
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
    return _f1_of(scores >= _HALF, labels)


def _mean_of_classes(values: _Floats) -> _Values:
    """Return the mean over classes of the mean over the examinations that have a value."""
    parts = []
    for k in range(values.shape[1]):
        known = np.isfinite(values[:, k])
        parts.append(_ratio(np.where(known, values[:, k], 0.0), known.astype(float)))
    return _mean(parts, len(values))


_Measure = Callable[[_Floats, NDArray[np.bool_]], _Values]
_OF_CLASSES: Mapping[str, _Measure] = {
    "auroc": _auroc,
    "accuracy": _accuracy,
    "balanced-accuracy": _balanced,
    "f1": _f1,
}
_OF_LABELS: Mapping[str, _Measure] = {
    "auroc": _auroc_of_labels,
    "accuracy": _label_accuracy,
    "balanced-accuracy": _label_balanced,
    "f1": _label_f1,
}
