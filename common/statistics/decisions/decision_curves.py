"""What acting on a model's scores is worth: net benefit over thresholds (Vickers and Elkin 2006).

Whoever acts from a probability of t on holds one case found worth (1 - t) / t needless actions.
Net benefit counts cases found less needless actions at that exchange, an examination.
"""

from dataclasses import dataclass

import numpy as np

from wardround.common.errors import InputError
from wardround.common.statistics.decisions.curves import Floats, Mask, PassedCounts


@dataclass(frozen=True, slots=True, eq=False)
class DecisionCurve:
    """Net benefit of three ways to decide; to treat nobody has a net benefit of 0.

    Attributes:
        thresholds: ``(S,)`` probabilities from which on one acts.
        model: ``(S,)`` of acting where the score passes the threshold.
        treat_all: ``(S,)`` of acting always.
    """

    thresholds: Floats
    model: Floats
    treat_all: Floats

    @property
    def gain(self) -> Floats:
        """``(S,)`` what the model adds to the better way of doing without it."""
        return np.asarray(self.model - np.maximum(self.treat_all, 0.0))


def decision_curve(counts: PassedCounts, thresholds: Floats) -> DecisionCurve:
    """Return the net benefit at each threshold; NaN without examinations.

    Raises:
        InputError: A threshold is not inside (0, 1).
    """
    odds = _odds(thresholds)
    total = counts.positives + counts.negatives
    if not total:
        nothing = np.full(len(thresholds), np.nan)
        return DecisionCurve(thresholds, nothing, nothing)
    hits, alarms = counts.at(thresholds)
    return DecisionCurve(
        thresholds,
        (hits - alarms * odds) / total,
        (counts.positives - counts.negatives * odds) / total,
    )


def gains_of_cases(scores: Floats, labels: Mask, threshold: float) -> Floats:
    """Return ``(N,)`` what the model adds to treating nobody, in each examination.

    Their mean is the net benefit, their spread over patients its sampling error.
    """
    odds = float(_odds(np.array([threshold]))[0])
    return np.where(scores >= threshold, np.where(labels, 1.0, -odds), 0.0)


def _odds(thresholds: Floats) -> Floats:
    if not ((thresholds > 0) & (thresholds < 1)).all():
        msg = (
            f"a threshold must be in (0, 1), got {thresholds.min():g} to {thresholds.max():g}: "
            "give probabilities from which on one would act."
        )
        raise InputError(msg)
    return np.asarray(thresholds / (1 - thresholds))
