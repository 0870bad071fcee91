"""Whether scores mean what they say: reliability bins, calibration errors and the Brier score.

A score of 0.8 is calibrated when 80 of 100 examinations with that score are of the class. All comes
from sums that add up over sites: the histograms of each class's scores, and bins of three sums.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import InputError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
BINS = 10  # a divisor of 100 and 1,000, the bins of score histograms


@dataclass(frozen=True, slots=True, eq=False)
class ReliabilityBins:
    """Examinations by their score in equal bins over [0, 1]; a bin has its lower edge.

    Attributes:
        count: ``(..., bins)`` examinations whose score lies in the bin.
        right: ``(..., bins)`` those among them for which the scored class is true.
        score_sum: ``(..., bins)`` sum of their scores.
    """

    count: Floats
    right: Floats
    score_sum: Floats

    def plus(self, other: "ReliabilityBins") -> "ReliabilityBins":
        """Return the bins over the examinations of both.

        Raises:
            InputError: They have other bins.
        """
        if self.count.shape != other.count.shape:
            msg = f"bins of shape {self.count.shape} and {other.count.shape} do not add up: "
            msg += "count both into the same bins."
            raise InputError(msg)
        return ReliabilityBins(
            self.count + other.count, self.right + other.right, self.score_sum + other.score_sum
        )

    @property
    def mean_score(self) -> Floats:
        """``(..., bins)`` what the model said, on the mean; NaN in an empty bin."""
        return _share(self.score_sum, self.count)

    @property
    def observed(self) -> Floats:
        """``(..., bins)`` how often it was so; NaN in an empty bin."""
        return _share(self.right, self.count)


def bin_scores(scores: Floats, labels: Mask, bins: int = BINS) -> ReliabilityBins:
    """Return the bins of each class's score, one class against the rest.

    Args:
        scores: ``(N, K)`` in [0, 1], or ``(N,)`` of one class.
        labels: Of the same shape: where the class is true.
        bins: Into how many.

    Returns:
        Bins ``(K, bins)``, or ``(bins,)``.
    """
    if scores.ndim == 1:
        return _bin(scores, labels, bins)
    each = [_bin(scores[:, k], labels[:, k], bins) for k in range(scores.shape[1])]
    return ReliabilityBins(
        np.stack([one.count for one in each]),
        np.stack([one.right for one in each]),
        np.stack([one.score_sum for one in each]),
    )


def bin_top_labels(scores: Floats, labels: Mask, bins: int = BINS) -> ReliabilityBins:
    """Return ``(bins,)`` of the highest score of each examination, right where its class is true.

    Args:
        scores: ``(N, K)`` of classes of which one is true.
        labels: ``(N, K)``.
        bins: Into how many.
    """
    top = scores.argmax(axis=1)
    rows = np.arange(len(scores))
    return _bin(scores[rows, top], labels[rows, top], bins)


def bin_histograms(positives: Floats, negatives: Floats, bins: int = BINS) -> ReliabilityBins:
    """Return the bins from finer histograms, each score taken in the middle of its fine bin.

    A mean score is off by at most half a fine bin, and so is each error below.

    Args:
        positives: ``(..., fine)`` scores where the class is true.
        negatives: ``(..., fine)`` where it is not.
        bins: Into how many; best a divisor of the fine ones.
    """
    fine = positives.shape[-1]
    middles = (np.arange(fine) + 0.5) / fine
    coarse = np.minimum((middles * bins).astype(int), bins - 1)
    both = positives + negatives

    def summed(values: Floats) -> Floats:
        total = np.zeros((*values.shape[:-1], bins))
        for bin_index in range(bins):
            total[..., bin_index] = values[..., coarse == bin_index].sum(axis=-1)
        return total

    return ReliabilityBins(summed(both), summed(positives), summed(both * middles))


def calibration_error(bins: ReliabilityBins) -> Floats:
    """Return the expected calibration error of each class, ``(...)``; NaN without examinations.

    The mean distance between score and frequency over bins, weighted by examinations (Naeini,
    Cooper and Hauskrecht 2015; of the top label: Guo et al. 2017). The mean of ``(K,)`` over
    classes is the classwise error of Nixon et al. 2019 and Kull et al. 2019. It is above 0 by
    chance even of a calibrated model, the more the fewer examinations a bin has.
    """
    gaps = np.abs(bins.right - bins.score_sum).sum(axis=-1)
    return _share(gaps, bins.count.sum(axis=-1))


def calibration_in_the_large(bins: ReliabilityBins) -> Floats:
    """Return how much higher the mean score is than the frequency of the class, ``(...)``."""
    over = (bins.score_sum - bins.right).sum(axis=-1)
    return _share(over, bins.count.sum(axis=-1))


def brier_scores(scores: Floats, labels: Mask) -> Floats:
    """Return each class's mean squared distance of score and truth, ``(K,)`` (Brier 1950).

    Of two classes that of either is the score that scikit-learn gives; their sum over classes is
    Brier's own, between 0 and 2.
    """
    if not len(scores):
        return np.full(scores.shape[1:], np.nan)
    return np.asarray(((scores - labels) ** 2).mean(axis=0))


def brier_scores_of_histograms(positives: Floats, negatives: Floats) -> Floats:
    """Return the same from ``(..., bins)`` histograms, each score in the middle of its bin."""
    middles = (np.arange(positives.shape[-1]) + 0.5) / positives.shape[-1]
    squares = (positives * (1 - middles) ** 2 + negatives * middles**2).sum(axis=-1)
    return _share(squares, (positives + negatives).sum(axis=-1))


def _bin(scores: Floats, labels: Mask, bins: int) -> ReliabilityBins:
    if scores.shape != labels.shape:
        msg = f"scores {scores.shape} and labels {labels.shape} differ in shape: "
        msg += "give one label for each score."
        raise InputError(msg)
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1):
        msg = f"a score must lie in [0, 1], got {scores.min():g} to {scores.max():g}: "
        msg += "give probabilities."
        raise InputError(msg)
    index = np.minimum((scores * bins).astype(int), bins - 1)
    return ReliabilityBins(
        np.bincount(index, minlength=bins).astype(np.float64),
        np.bincount(index, weights=labels, minlength=bins).astype(np.float64),
        np.bincount(index, weights=scores, minlength=bins).astype(np.float64),
    )


def _share(parts: Floats, wholes: Floats) -> Floats:
    shares = np.full(np.broadcast(parts, wholes).shape, np.nan)
    np.divide(parts, wholes, out=shares, where=np.asarray(wholes) > 0)
    return shares
