"""What a model states with a probability, and whether it was so: what calibration is about."""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wardround.common.statistics.clustered import (
    Ratios,
    metric_interval,
    of_patients,
    patient_sums,
)
from wardround.common.statistics.decisions.calibration import (
    BINS,
    ReliabilityBins,
    bin_scores,
    calibration_error,
)
from wardround.common.statistics.interval import Interval
from wardround.simulations.evidence.answers import Answers

Floats = NDArray[np.float64]
_SHARE = Ratios(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]), np.ones(1))


@dataclass(frozen=True, slots=True, eq=False)
class Statements:
    """M statements.

    Of two classes, each examination states the second one; of more, the most probable one; with
    labels that are questions of their own, every label.

    Attributes:
        said: ``(M,)`` in [0, 1].
        so: ``(M,)``.
        patients: ``(M,)`` of whom.
    """

    said: Floats
    so: NDArray[np.bool_]
    patients: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.said)

    def between(self, low: float, high: float) -> "Statements":
        """Return those with a probability in [low, high)."""
        there = (self.said >= low) & (self.said < high)
        return Statements(self.said[there], self.so[there], self.patients[there])

    @property
    def share(self) -> Interval:
        """How often it was so, with the interval of the patients' scatter."""
        return mean_of_patients(self.so.astype(np.float64), self.patients)

    @property
    def bins(self) -> ReliabilityBins:
        """The statements in ten bins."""
        return bin_scores(self.said, self.so)

    @property
    def error(self) -> float:
        """The expected calibration error."""
        return float(calibration_error(self.bins))

    @property
    def chance_error(self) -> float:
        """About the error that as many statements have on the mean when all are calibrated."""
        if not len(self):
            return math.nan
        index = np.minimum((self.said * BINS).astype(int), BINS - 1)
        spread = np.bincount(index, weights=self.said * (1 - self.said), minlength=BINS)
        # The mean distance of a normal variable from its mean is sqrt(2 / pi) of its deviation.
        return float(np.sqrt(2 / math.pi * spread).sum() / len(self))


def statements_of(answers: Answers) -> Statements:
    """Return what was stated of the examinations."""
    scores, labels, patients = answers.scores, answers.labels, answers.patients
    if answers.multi_label:
        classes = scores.shape[1]
        return Statements(scores.ravel(), labels.ravel(), np.repeat(patients, classes))
    if scores.shape[1] == 2:
        return Statements(scores[:, 1], labels[:, 1], patients)
    rows, top = np.arange(len(scores)), scores.argmax(axis=1)
    return Statements(scores[rows, top], labels[rows, top], patients)


def bin_shares(statements: Statements) -> list[Interval]:
    """Return how often it was so in each of the ten bins."""
    edges = np.arange(BINS + 1) / BINS
    edges[-1] = math.inf
    return [statements.between(float(low), float(high)).share for low, high in pairwise(edges)]


def brier_of(answers: Answers) -> Interval:
    """Return the Brier score with its interval.

    Of two classes the second one's; of more the sum over classes, 0 to 2; of labels their mean.
    """
    squares = (answers.scores - answers.labels) ** 2
    if answers.multi_label:
        return mean_of_patients(squares.mean(axis=1), answers.patients)
    if squares.shape[1] == 2:
        return mean_of_patients(squares[:, 1], answers.patients)
    half = mean_of_patients(squares.sum(axis=1) / 2, answers.patients)
    ends = 2 * half.value, 2 * half.low, 2 * half.high, 2 * half.standard_error
    return Interval(*ends, half.freedom, half.patients)


def mean_of_patients(values: Floats, patients: NDArray[np.int64]) -> Interval:
    """Return the mean of ``(N,)`` values in [0, 1], with the interval of the patients' scatter."""
    columns = np.stack([values, np.ones_like(values)], axis=1)
    return metric_interval(patient_sums(of_patients(columns, patients)), _SHARE)
