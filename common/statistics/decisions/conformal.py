"""Sets of classes that hold the true one in nine of ten examinations, at every site.

Split conformal prediction with the least ambiguous sets (LAC: Sadinle, Lei and Wasserman 2019): a
class is in the set when its score is at least a threshold, a quantile of the scores that the true
classes had on validation examinations. One threshold for all sites keeps the promise on the mean
and breaks it at sites unlike the others; each site's own is drawn from few examinations and makes
large sets. Shrinkage lies between them: the more examinations, the more a site's own counts.
"""

import math
from dataclasses import dataclass

import numpy as np

from wardround.common.errors import InputError
from wardround.common.statistics.decisions.curves import Floats, Mask

PRIOR_CASES = 19.0  # of the pooled threshold, against a site's own examinations


@dataclass(frozen=True, slots=True)
class Coverage:
    """How sets did on examinations that did not make them.

    Attributes:
        examinations: How many.
        covered: Share whose set holds the true class; NaN without examinations.
        mean_size: Classes in a set, on the mean.
        empty: Share of sets without a class: the model finds none likely enough.
    """

    examinations: int
    covered: float
    mean_size: float
    empty: float


def true_scores(scores: Floats, labels: Mask) -> Floats:
    """Return ``(N,)`` the score of each examination's true class, from ``(N, K)``."""
    return np.asarray(scores[np.arange(len(scores)), labels.argmax(axis=1)])


def set_threshold(of_truth: Floats, target: float) -> float:
    """Return from which score on a class is in the set, so that ``target`` of sets hold the truth.

    The k-th lowest of n scores with k = floor((n + 1)(1 - target)): by exchangeability a new
    examination's true class has a lower one in at most 1 - target of cases. 0, that is sets of all
    classes, where n is too small for the promise.

    Args:
        of_truth: ``(n,)`` scores of true classes on validation examinations.
        target: Share of sets that shall hold the truth, in (0, 1).
    """
    _check_target(target)
    rank = _rank(len(of_truth), target)
    return float(np.partition(of_truth, rank - 1)[rank - 1]) if rank else 0.0


def set_threshold_of_histogram(of_truth: Floats, target: float) -> float:
    """Return the same from a histogram over [0, 1], at the lower edge of the bin: sets only grow.

    The histogram adds up over sites. That of the scores of true classes is the sum over classes of
    the histogram of a class's score where it is true.

    Args:
        of_truth: ``(bins,)`` counts.
        target: Share of cases whose set shall hold the truth, between 0 and 1.
    """
    _check_target(target)
    rank = _rank(int(of_truth.sum()), target)
    if not rank:
        return 0.0
    return float(np.searchsorted(of_truth.cumsum(), rank) / len(of_truth))


def shrunk_threshold(
    own: float, pooled: float, examinations: int, prior_cases: float = PRIOR_CASES
) -> float:
    """Return a site's threshold between its own and that of all sites.

    Args:
        own: From the site's validation examinations.
        pooled: From all sites'.
        examinations: How many the site has for validation.
        prior_cases: How many examinations the pooled threshold counts for.
    """
    weight = examinations / (examinations + prior_cases)
    return weight * own + (1 - weight) * pooled


def make_sets(scores: Floats, threshold: float) -> Mask:
    """Return ``(N, K)`` which classes are in the set of each examination."""
    return np.asarray(scores >= threshold)


def measure_sets(sets: Mask, labels: Mask) -> Coverage:
    """Return how often ``(N, K)`` sets hold the true class, and how large they are."""
    if not len(sets):
        return Coverage(0, math.nan, math.nan, math.nan)
    sizes = sets.sum(axis=1)
    covered = (sets & labels).any(axis=1)
    return Coverage(
        len(sets), float(covered.mean()), float(sizes.mean()), float((sizes == 0).mean())
    )


def _rank(examinations: int, target: float) -> int:
    # A hair upwards: (99 + 1)(1 - 0.9) is 10, and 9.999... in floating point.
    return math.floor((examinations + 1) * (1 - target) + 1e-9)


def _check_target(target: float) -> None:
    if not 0 < target < 1:
        msg = f"the share of sets that hold the truth must be in (0, 1), got {target:g}: "
        msg += "0.9 is usual."
        raise InputError(msg)
