"""Brier scores of times to an event, and calibration at the horizon, weighted for censoring.

At a time t a patient is off by ``S(t)^2`` if it had its event by then and by ``(1 - S(t))^2`` if
it is known to be without. Who was only followed for a shorter time is left out, and those who are
left count for them: by ``1 / G(T-)`` and ``1 / G(t)``, where G(t) is the probability of being
followed beyond t, the Kaplan-Meier curve of the ends of follow-up (Graf, Schmoor, Sauerbrei and
Schumacher 1999). At one time an event comes before an end of follow-up.

Each site takes a G of its own patients. How long patients are followed differs between hospitals,
and a G of all would take that for the same; it is exact, where one from merged sums would know
times to a bin only; and it needs no further message. The price is a G of few patients at a small
site. A site that follows nobody to t says nothing about t, and is not counted there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.task_sums import Counts, Sums, no_counts

HORIZON_BINS = 10  # of the probability of an event up to the horizon
SEEN, PREDICTED, WEIGHT, WEIGHTED_EVENTS = range(4)  # rows of the sums at the horizon


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """How N examinations count at T times.

    Attributes:
        ended: ``(N, T)`` whether the event was by then.
        weight: ``(N, T)`` 1 / G, or 0 where nobody knows; they add up to N where ``known``.
        known: ``(T,)`` whether somebody could still be followed, G above 0.
    """

    ended: NDArray[np.bool_]
    weight: Sums
    known: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class CensoredErrors:
    """Sums over the examinations of one site, at T times.

    Attributes:
        brier: ``(T,)`` weighted squared errors.
        told: ``(T,)`` examinations behind each: all of the site's, or none.
        horizon: ``(4, HORIZON_BINS)`` at the last time, by the probability of an event up to it:
            examinations, sums of the probability, of the weights, and of the weights of those who
            had the event.
    """

    brier: Sums
    told: Counts
    horizon: Sums


@dataclass(frozen=True, slots=True, eq=False)
class CensoredCases:
    """The same of each of N examinations, ``(N,)`` each; sums of them are those of the site.

    Attributes:
        brier: Weighted squared error as a mean over the time to the horizon.
        told: Share of the time at which the site knows anything; 0 where there is nothing.
        alive: The probability of no event up to the horizon.
        weight: At the horizon; 0 of those of whom nobody knows.
    """

    brier: Sums
    told: Sums
    alive: Sums
    weight: Sums


def censoring_weights(times: Sums, events: NDArray[np.bool_], at: Sums) -> Weights:
    """Return how examinations count at some times.

    Args:
        times: ``(N,)`` at least 0, of the event or of the end of follow-up.
        events: ``(N,)`` which of the two.
        at: ``(T,)`` rising. Follow-up ends at the last: who has no event by then was followed
            beyond it.
    """
    horizon = float(at[-1]) if len(at) else 0.0
    beyond = ~events & (times >= horizon)
    ends, left = _followed_beyond(times, ~events & ~beyond)
    before_own = left[np.searchsorted(ends, times, side="left")]
    after = left[np.searchsorted(ends, at, side="right")]
    ended = events[:, None] & (times[:, None] <= at)
    alive = (times[:, None] > at) | beyond[:, None]
    known = after > 0
    weight = np.where(ended, 1 / np.maximum(before_own, 1e-300)[:, None], 0.0)
    weight = np.where(alive & known, 1 / np.where(known, after, 1.0), weight)
    return Weights(ended, np.asarray(weight * known), np.asarray(known, dtype=np.bool_))


def _followed_beyond(times: Sums, censored: NDArray[np.bool_]) -> tuple[Sums, Sums]:
    """Return ``(M,)`` times at which follow-up ends, and ``(M + 1,)`` G before each and after."""
    ends, counts = np.unique(times[censored], return_counts=True)
    ordered, gone = np.sort(times), np.sort(times[~censored])
    # At one time events come first, so that those with one are at risk no more.
    reached = len(ordered) - np.searchsorted(ordered, ends, side="left")
    events_then = np.searchsorted(gone, ends, "right") - np.searchsorted(gone, ends, "left")
    at_risk = (reached - events_then).astype(np.float64)
    kept = np.cumprod(1 - counts / np.maximum(at_risk, 1.0))
    return ends, np.concatenate([[1.0], kept])


def censored_errors(
    times: Sums, events: NDArray[np.bool_], alive: Sums, at: Sums
) -> CensoredErrors:
    """Return the sums over N examinations of one site.

    Args:
        times: As :func:`censoring_weights` takes them, as ``events`` and ``at``.
        events: ``(N,)``.
        alive: ``(N, T)`` what the model says of being without event up to each time, in [0, 1].
        at: ``(T,)``.
    """
    weights = censoring_weights(times, events, at)
    squared = np.where(weights.ended, alive, 1 - alive) ** 2
    told = np.where(weights.known, len(times), 0).astype(np.int64)
    horizon = np.zeros((4, HORIZON_BINS))
    if len(times) and weights.known[-1]:
        risk, weight = 1 - alive[:, -1], weights.weight[:, -1]
        place = np.minimum((risk * HORIZON_BINS).astype(np.int64), HORIZON_BINS - 1)
        for row, each in enumerate(
            (np.ones(len(times)), risk, weight, weight * weights.ended[:, -1])
        ):
            horizon[row] = np.bincount(place, weights=each, minlength=HORIZON_BINS)
    return CensoredErrors((weights.weight * squared).sum(axis=0), told, horizon)


def censored_cases(times: Sums, events: NDArray[np.bool_], alive: Sums, at: Sums) -> CensoredCases:
    """Return what :func:`censored_errors` adds up, of each examination.

    Args:
        times: ``(N,)`` of follow-up.
        events: ``(N,)`` whether it ended in the event.
        alive: ``(N, T)`` probabilities to be without the event at each time.
        at: ``(T,)`` those times, ascending.
    """
    weights = censoring_weights(times, events, at)
    squared = np.where(weights.ended, alive, 1 - alive) ** 2
    told = np.full(len(times), _behind(weights.known.astype(np.float64), at))
    brier = (weights.weight * squared * spans(at)).sum(axis=1)
    return CensoredCases(brier, told, alive[:, -1], weights.weight[:, -1])


def no_cases(count: int) -> CensoredCases:
    """Return nothing of so many examinations."""
    return CensoredCases(*np.zeros((4, count)))


def no_errors(count: int) -> CensoredErrors:
    """Return the sums over no examination, at so many times."""
    return CensoredErrors(np.zeros(count), no_counts(count), np.zeros((4, HORIZON_BINS)))


def spans(at: Sums) -> Sums:
    """Return ``(T,)``: what each time counts in a mean over the time from 0 to the last one.

    The trapezoidal rule; at 0 nobody is off, since no event was yet.
    """
    edges = np.concatenate([[0.0], at])
    steps = np.diff(edges)
    after = np.concatenate([steps[1:], [0.0]])
    return np.asarray((steps + after) / 2 / at[-1])


def integrated(brier: Sums, told: Counts | Sums, at: Sums) -> float:
    """Return the Brier score as a mean over the time and the examinations; NaN of none.

    Where all sites are known at all times this is the integrated Brier score over the horizon.
    """
    behind = _behind(told, at)
    return float((spans(at) * brier).sum()) / behind if behind > 0 else float("nan")


def _behind(told: Counts | Sums, at: Sums) -> float:
    """Return the mean over the time of who is counted; up to the first time as many as at it."""
    return float((spans(at) * told).sum()) + float(at[0] / 2 / at[-1] * told[0])


def horizon_error(horizon: Sums) -> tuple[float, int]:
    """Return how far the events by the horizon are from what the model said, and of how many.

    The mean over bins of the distance between the mean probability and the weighted share of those
    who had the event, by the examinations of the bin. Bins of which nobody is known at the horizon
    are left out. NaN where there is none.
    """
    some = horizon[:, horizon[WEIGHT] > 0]
    count = float(some[SEEN].sum())
    if not count > 0:
        return float("nan"), 0
    off = np.abs(some[PREDICTED] - some[SEEN] * some[WEIGHTED_EVENTS] / some[WEIGHT])
    return float(off.sum()) / count, round(count)
