"""What passes each threshold: the counts behind ROC, precision-recall and decision curves.

A score passes a threshold that it is not below. Counts come from raw scores, or from the histograms
of a class's scores that sites send and that add up over sites.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import InputError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class PassedCounts:
    """How many of one class's positives and negatives pass each of T thresholds.

    Attributes:
        thresholds: ``(T,)`` from infinity, which nothing passes, down to one that all pass.
        true_positives: ``(T,)`` positives that pass.
        false_positives: ``(T,)`` negatives that pass.
        binned: Whether they are of histograms, so that what lies between two thresholds is not
            known; else every score that occurs is a threshold.
    """

    thresholds: Floats
    true_positives: Floats
    false_positives: Floats
    binned: bool = False

    @property
    def positives(self) -> float:
        """How many there are of the class."""
        return float(self.true_positives[-1])

    @property
    def negatives(self) -> float:
        """How many there are of the others."""
        return float(self.false_positives[-1])

    @property
    def sensitivity(self) -> Floats:
        """``(T,)`` share of the positives that pass; NaN without positives."""
        return self.true_positives / self.positives if self.positives else self._undefined()

    @property
    def false_alarms(self) -> Floats:
        """``(T,)`` share of the negatives that pass, 1 - specificity; NaN without negatives."""
        return self.false_positives / self.negatives if self.negatives else self._undefined()

    @property
    def precision(self) -> Floats:
        """``(T,)`` share of the positives among what passes; 1 where nothing passes."""
        passed = self.true_positives + self.false_positives
        shares = np.ones_like(passed)
        np.divide(self.true_positives, passed, out=shares, where=passed > 0)
        return shares

    def at(self, thresholds: Floats) -> tuple[Floats, Floats]:
        """Return how many positives and negatives pass other thresholds, ``(S,)`` each.

        Between two thresholds of histograms the counts are read off a straight line; from raw
        scores they are exact.
        """
        if not self.binned:
            # The thresholds fall: the last one that is not below the asked one says what passes.
            place = np.searchsorted(-self.thresholds, -np.asarray(thresholds), side="right") - 1
            return self.true_positives[place], self.false_positives[place]
        upward = self.thresholds[:0:-1]
        return (
            np.interp(thresholds, upward, self.true_positives[:0:-1], right=0.0),
            np.interp(thresholds, upward, self.false_positives[:0:-1], right=0.0),
        )

    def _undefined(self) -> Floats:
        return np.full(len(self.thresholds), math.nan)


def count_scores(scores: Floats, labels: Mask) -> PassedCounts:
    """Return the counts at every score that occurs.

    Args:
        scores: ``(N,)`` of one class; N may be 0.
        labels: ``(N,)`` which examinations are of the class.

    Raises:
        InputError: The two differ in length.
    """
    if scores.shape != labels.shape or scores.ndim != 1:
        msg = f"scores and labels must be two lists of one length, got {scores.shape} and "
        msg += f"{labels.shape}: give one label for each score."
        raise InputError(msg)
    order = np.argsort(-scores, kind="stable")
    scores, truth = scores[order], labels[order]
    # The last of equal scores: what passes one of them passes all.
    places = np.flatnonzero(np.append(np.diff(scores), -1.0)) if len(scores) else np.arange(0)
    hits, alarms = truth.cumsum()[places], (~truth).cumsum()[places]
    return PassedCounts(_after(math.inf, scores[places]), _after(0.0, hits), _after(0.0, alarms))


def count_histograms(positives: Floats, negatives: Floats) -> PassedCounts:
    """Return the counts at the lower edge of every bin.

    Args:
        positives: ``(bins,)`` histogram over [0, 1] of the class's score where it is true.
        negatives: ``(bins,)`` where it is not.

    Raises:
        InputError: The two differ in their bins.
    """
    if positives.shape != negatives.shape or positives.ndim != 1 or not positives.size:
        msg = f"two histograms of {positives.shape} and {negatives.shape} bins cannot be compared: "
        msg += "count both into the same bins."
        raise InputError(msg)
    bins = len(positives)
    edges = np.arange(bins - 1, -1, -1) / bins
    hits, alarms = positives[::-1].cumsum(), negatives[::-1].cumsum()
    counts = _after(0.0, hits), _after(0.0, alarms)
    return PassedCounts(_after(math.inf, edges), *counts, binned=True)


def _after(first: float, values: NDArray[np.generic]) -> Floats:
    return np.concatenate([[first], values.astype(np.float64)])
