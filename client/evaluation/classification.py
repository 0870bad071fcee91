"""From the network's outputs on a site's examinations to the counts that may leave it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.common.metrics.sums import ClassificationSums, Counts, Sums
from wardround.common.study.study import Study

Mask = NDArray[np.bool_]


def count_classification(logits: Tensor, targets: Tensor, study: Study) -> ClassificationSums:
    """Return the counts over all examinations of one site.

    Args:
        logits: ``(N, K)``, finite, on the CPU. A score is their softmax, for multi-label their
            sigmoid; a label is predicted from a score of one half on.
        targets: ``(N,)`` class indices, or ``(N, K)`` 0/1 for multi-label.
        study: Says the classes and the bins of scores.
    """
    classes = study.class_count
    # float64 keeps confident examinations apart that float32 would tie at a score of 1.
    if study.data.multi_label:
        scores = torch.sigmoid(logits.double()).numpy()
        truth = targets.numpy() > 0.5
        confusion = _label_tables(truth, scores >= 0.5)
    else:
        scores = torch.softmax(logits.double(), dim=1).numpy()
        labels = targets.numpy()
        truth = labels[:, None] == np.arange(classes)
        cell = labels * classes + scores.argmax(axis=1)
        confusion = np.bincount(cell, minlength=classes**2).reshape(classes, classes)
    bins = study.evaluation.score_bins
    return ClassificationSums(
        confusion,
        _histograms(scores, truth, bins),
        _histograms(scores, ~truth, bins),
        _ordered_pairs(scores, truth),
    )


def _label_tables(truth: Mask, predicted: Mask) -> Counts:
    """Return ``(K, 2, 2)``: true by predicted, absent before present."""
    classes = truth.shape[1]
    cell = np.arange(classes) * 4 + truth * 2 + predicted
    return np.bincount(cell.ravel(), minlength=classes * 4).reshape(classes, 2, 2)


def _histograms(scores: Sums, chosen: Mask, bins: int) -> Counts:
    """Return ``(K, bins)``: the chosen examinations' scores, a score of 1 in the last bin."""
    classes = scores.shape[1]
    place = np.minimum((scores * bins).astype(np.int64), bins - 1) + np.arange(classes) * bins
    return np.bincount(place[chosen], minlength=classes * bins).reshape(classes, bins)


def _ordered_pairs(scores: Sums, truth: Mask) -> Sums:
    """Return ``(K,)``: the Mann-Whitney U of each class against the rest, ties one half."""
    pairs = np.zeros(scores.shape[1])
    for index in range(scores.shape[1]):
        column, positive = scores[:, index], truth[:, index]
        negatives = np.sort(column[~positive])
        below = negatives.searchsorted(column[positive], side="left")
        not_above = negatives.searchsorted(column[positive], side="right")
        pairs[index] = (below.sum() + not_above.sum()) / 2
    return pairs
