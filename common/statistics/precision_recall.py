"""Precision and recall: the curve and its average, from scores or from two histograms."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def average_precision(scores: Floats, labels: Flags) -> float:
    """Return the sum over thresholds of precision times the recall gained; NaN without positives.

    The definition of scikit-learn's ``average_precision_score``; equal scores are one threshold.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)`` which are positive.
    """
    return float(weighted_average_precision(scores, labels, np.ones((1, len(scores))))[0])


def weighted_average_precision(scores: Floats, labels: Flags, weights: Floats) -> Floats:
    """Return the average precision of B weightings of N examinations, ``(B,)``.

    Args:
        scores: ``(N,)``.
        labels: ``(N,)`` which are positive.
        weights: ``(B, N)``, e.g. how often a bootstrap drew each.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, [True] * bool(len(scores))))
    drawn = weights[:, order]
    ahead = (drawn * labels[order]).cumsum(axis=1)[:, ends]
    called = drawn.cumsum(axis=1)[:, ends]
    return _average(ahead, called)


def average_precision_from_histograms(positives: Floats, negatives: Floats) -> float:
    """Return the average precision from ``(B,)`` histograms of scores; NaN without positives.

    Within a bin nothing is known of the order, so this is the expectation over all orders: the
    i-th of a bin's c examinations, p of them positive, is positive with probability p / c, and has
    (i - 1)(p - 1) / (c - 1) positives of its bin before it. A bin that counted as one threshold
    would be too low.
    """
    ahead = np.asarray(positives, float)[::-1]
    called = ahead + np.asarray(negatives, float)[::-1]
    total = ahead.sum()
    if total <= 0:
        return math.nan
    above, all_above = ahead.cumsum() - ahead, called.cumsum() - called
    used = ahead > 0
    p, c, found, seen = ahead[used], called[used], above[used], all_above[used]
    growth = np.divide(p - 1, c - 1, out=np.zeros_like(p), where=c > 1)
    harmonic = digamma(seen + c + 1) - digamma(seen + 1)  # sum over i of 1 / (seen + i)
    parts = p / c * ((found + 1) * harmonic + growth * (c - (seen + 1) * harmonic))
    return float(parts.sum() / total)


def _average(ahead: Floats, called: Floats) -> Floats:
    """Return the average precision from true and called positives at falling thresholds."""
    total = ahead[:, -1:] if ahead.shape[1] else np.zeros((len(ahead), 1))
    precision = np.divide(ahead, called, out=np.zeros_like(ahead), where=called > 0)
    gained = np.diff(ahead, axis=1, prepend=0.0)
    found = (precision * gained).sum(axis=1)
    undefined = np.full(len(found), math.nan)
    return np.asarray(np.divide(found, total[:, 0], out=undefined, where=total[:, 0] > 0))
