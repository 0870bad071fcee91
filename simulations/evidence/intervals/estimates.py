"""A metric of one model on some patients, with an interval whose unit is the patient.

The intervals are those of ``common/statistics``. Beside each stands the influence of each patient:
by how much the metric moves with it, to first order. With these the difference of two groups has an
interval too, also where some patients, or all of them, are on both sides.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.statistics.case_metrics import (
    OF_ANSWERS,
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
from wardround.common.statistics.decisions.calibration import (
    bin_scores,
    bin_top_labels,
    calibration_error,
)
from wardround.common.statistics.interval import (
    Interval,
    t_interval,
    two_sided_p,
    unknown_interval,
)
from wardround.simulations.evidence.intervals.metric_estimates import estimate_of
from wardround.simulations.evidence.intervals.outcome_metrics import (
    metrics_of,
    outcome_interval,
)
from wardround.simulations.run_files.outcomes import Outcomes, outcomes_together
from wardround.simulations.run_files.predictions import MEASURES, Masks, Scores

Answered = Scores | Masks | Outcomes
_Floats = NDArray[np.float64]
_ROUNDING = 1e-12
_COLUMNS = {"dice": "dice", "hd95": "hd95", "surface-dice": "surface_dice"}


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """A metric of N examinations with its interval, and by how much each patient moves it.

    Attributes:
        influence: ``(P,)`` by the number of the patient; their sum is 0.
        patients: ``(N,)`` whose examination each is.
    """

    interval: Interval
    influence: _Floats
    patients: NDArray[np.int64]

    @property
    def value(self) -> float:
        """NaN where it is not defined."""
        return self.interval.value


def measure(metric: str, answers: Answered, multi_label: bool = False) -> Measure | None:
    """Return a metric as the study's own sums define it; None where it is not known here.

    Args:
        metric: A key of METRICS.
        answers: Whose ``patients`` tell all patients apart, also those of several sites.
        multi_label: Whether an examination may be of several classes.
    """
    if isinstance(answers, Outcomes):
        if metric not in metrics_of(answers):
            return None
        interval = outcome_interval(metric, answers)
    elif isinstance(answers, Masks):
        if metric not in _COLUMNS:
            return None
        values = getattr(answers, _COLUMNS[metric])
        interval = _of_cases(values, answers.patients, bounded=metric != "hd95")
    elif metric == "auroc":
        interval = _of_areas(answers, multi_label)
    elif metric in OF_ANSWERS:
        interval = _of_answers(metric, answers, multi_label)
    else:
        return None
    influence = estimate_of(metric, answers, multi_label).influence
    return Measure(interval, influence, answers.patients)


def difference(first: Measure, second: Measure) -> Interval:
    """Return by how much the first value is larger, with its interval.

    The variance is the sum of both less twice their covariance over the patients of both: of two
    groups nobody, of two models that answered the same patients all of them.
    """
    a, b = first.interval, second.interval
    value, count = a.value - b.value, len(np.union1d(first.patients, second.patients))
    if math.isnan(value) or math.isnan(a.standard_error) or math.isnan(b.standard_error):
        return unknown_interval(value, count)
    size = max(len(first.influence), len(second.influence))
    sides = [np.pad(one.influence, (0, size - len(one.influence))) for one in (first, second)]
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


def all_together(parts: Sequence[Answered]) -> Answered:
    """Return the examinations of several sites, of one task, as one; there is at least one part."""
    if scores := [part for part in parts if isinstance(part, Scores)]:
        return together(scores)
    if masks := [part for part in parts if isinstance(part, Masks)]:
        return masks_together(masks)
    return outcomes_together([part for part in parts if isinstance(part, Outcomes)])


def chosen(answers: Answered, some: NDArray[np.bool_]) -> Answered:
    """Return some of the examinations."""
    if isinstance(answers, Outcomes):
        return answers.chosen(some)
    if isinstance(answers, Scores):
        return Scores(
            answers.cases[some], answers.patients[some], answers.scores[some], answers.labels[some]
        )
    return Masks(
        answers.cases[some],
        answers.patients[some],
        *(getattr(answers, name)[some] for name in MEASURES),
    )


def expected_calibration_error(answers: Scores, multi_label: bool = False) -> float:
    """Return the expected calibration error over ten bins of equal width; NaN without examinations.

    Of two classes, that of the second one's score; of more, of the score of the class found
    (top-label); of several labels, the mean over labels. (Naeini et al., AAAI 2015.)
    """
    scores, labels = answers.scores, answers.labels
    if not len(scores):
        return math.nan
    if not multi_label and scores.shape[1] > 2:
        return float(calibration_error(bin_top_labels(scores, labels)))
    each = calibration_error(bin_scores(scores, labels))
    return float(each.mean() if multi_label else each[1])


def _apart(patients: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    found, first = [], 0
    for part in patients:
        found.append(part + first)
        first += int(part.max(initial=-1)) + 1
    return np.concatenate(found)
