"""What acting on a model gives: thresholds of validation patients on test patients, and sets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wardround.common.statistics.clustered import (
    PatientSums,
    Ratios,
    metric_interval,
    of_patients,
    patient_sums,
)
from wardround.common.statistics.decisions.conformal import (
    make_sets,
    measure_sets,
    set_threshold,
    shrunk_threshold,
    true_scores,
)
from wardround.common.statistics.decisions.curves import count_scores
from wardround.common.statistics.decisions.decision_curves import gains_of_cases
from wardround.common.statistics.decisions.operating_points import (
    Aim,
    Operation,
    choose_threshold,
    operate,
    operation_sums,
)
from wardround.common.statistics.interval import Interval, t_interval
from wardround.common.study.study import Study
from wardround.simulations.evidence.answers import AllScores, Answers, answers_at
from wardround.simulations.evidence.intervals.statements import mean_of_patients
from wardround.simulations.run_files.folder import FEDERATED

COVERAGE = 0.9
"""Share of sets that shall hold the right class."""
_PER_EXAMINATION = Ratios(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.ones(1), bounded=False)


@dataclass(frozen=True, slots=True)
class Goal:
    """What a threshold shall reach.

    Attributes:
        stated: Whether the study file says so; else it is what is usual.
    """

    aim: Aim
    wanted: float
    stated: bool


def goal_of(study: Study) -> Goal:
    """Return what the study's threshold shall reach."""
    point = study.evaluation.operating_point
    if point is None:
        return Goal("sensitivity", 0.9, stated=False)
    if point.sensitivity is not None:
        return Goal("sensitivity", point.sensitivity, stated=True)
    return Goal("specificity", point.specificity or 0.9, stated=True)


@dataclass(frozen=True, slots=True, eq=False)
class Acted:
    """What a threshold gives for one class.

    Attributes:
        threshold: NaN where validation patients do not say one.
        sums: Of the patients' four numbers; add up over hospitals.
        operation: The shares with their intervals.
    """

    threshold: float
    sums: PatientSums
    operation: Operation


def thresholds_of(validation: Answers | None, goal: Goal, classes: int) -> list[float]:
    """Return a threshold a class, chosen on all hospitals' validation patients; NaN for none."""
    if validation is None:
        return [math.nan] * classes
    return [
        choose_threshold(
            count_scores(validation.scores[:, k], validation.labels[:, k]), goal.aim, goal.wanted
        )
        for k in range(classes)
    ]


def act(answers: Answers, k: int, threshold: float) -> Acted:
    """Return what a threshold of class k gives on test examinations."""
    sums = operation_sums(answers.scores[:, k], answers.labels[:, k], answers.patients, threshold)
    return Acted(threshold, sums, operate(sums))


def worth_of(answers: Answers, k: int, threshold: float) -> Interval:
    """Return the net benefit of acting on the model over the better of acting always and never.

    In cases found an examination, at the exchange that the threshold says.
    """
    scores, labels = answers.scores[:, k], answers.labels[:, k]
    always = gains_of_cases(np.ones_like(scores), labels, threshold)
    gains = gains_of_cases(scores, labels, threshold)
    if always.mean() > 0:
        gains = gains - always
    columns = np.stack([gains, np.ones_like(gains)], axis=1)
    found = metric_interval(patient_sums(of_patients(columns, answers.patients)), _PER_EXAMINATION)
    return t_interval(found.value, found.standard_error, found.freedom, found.patients)


@dataclass(frozen=True, slots=True)
class SetsAt:
    """How sets of classes did at one hospital.

    Attributes:
        validation: Examinations that its own threshold comes from.
        covered: Share of test sets that hold the right class.
        mean_size: Classes in a set.
        empty: Share of sets without a class.
    """

    site: str
    validation: int
    covered: Interval
    mean_size: float
    empty: float


def measure_all_sets(
    scores: AllScores, sites: Sequence[str]
) -> tuple[tuple[SetsAt, ...], tuple[SetsAt, ...]]:
    """Return how sets did at each hospital: with one threshold for all, and with shrunk ones.

    Empty where no hospital has validation patients. The classes must exclude each other.
    """
    validation = answers_at(scores, FEDERATED, sites, "validation", multi_label=False)
    if validation is None:
        return (), ()
    pooled = set_threshold(true_scores(validation.scores, validation.labels), COVERAGE)
    common, shrunk = [], []
    for site in sites:
        test = answers_at(scores, FEDERATED, (site,), "test", multi_label=False)
        own = answers_at(scores, FEDERATED, (site,), "validation", multi_label=False)
        if test is None:
            continue
        count = 0 if own is None else len(own)
        threshold = pooled
        if own is not None:
            of_truth = true_scores(own.scores, own.labels)
            threshold = shrunk_threshold(set_threshold(of_truth, COVERAGE), pooled, count)
        common.append(_sets_at(site, count, test, pooled))
        shrunk.append(_sets_at(site, count, test, threshold))
    return tuple(common), tuple(shrunk)


def _sets_at(site: str, validation: int, test: Answers, threshold: float) -> SetsAt:
    sets = make_sets(test.scores, threshold)
    found = measure_sets(sets, test.labels)
    hits = np.asarray((sets & test.labels).any(axis=1), dtype=np.float64)
    covered = mean_of_patients(hits, test.patients)
    return SetsAt(site, validation, covered, found.mean_size, found.empty)
