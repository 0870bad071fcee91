"""The metrics of the catalogue as ratios of patients' sums: which numbers each patient has.

A classification's patient has, for each of C columns, how many examinations are of it and were
called so, how many were called so, and how many are of it. With several labels a column is a label
that is absent (the first half) or present (the second half). A segmentation's patient has, for each
class, the sum of its cases' values and how many cases have one.
"""

import numpy as np
from numpy.typing import NDArray

from wardround.common.statistics.clustered import Floats, Ratios

Flags = NDArray[np.bool_]
OF_ANSWERS = ("accuracy", "balanced-accuracy", "f1")


def answer_columns(called: Flags, truth: Flags, multi_label: bool) -> Floats:
    """Return each examination's numbers, ``(N, 3C)``: right, called and of each column.

    Args:
        called: ``(N, K)`` what the model answered.
        truth: ``(N, K)`` what is true.
        multi_label: Whether an examination may have several labels; then C is 2K.
    """
    if multi_label:
        called = np.concatenate([~called, called], axis=1)
        truth = np.concatenate([~truth, truth], axis=1)
    return np.concatenate([called & truth, called, truth], axis=1).astype(np.float64)


def answers_of_scores(scores: Floats, multi_label: bool) -> Flags:
    """Return what a model answers, ``(N, K)``: the first largest score, or labels from 0.5 on."""
    if multi_label:
        return scores >= 0.5
    best = scores.argmax(axis=1) if scores.shape[1] else np.zeros(len(scores), dtype=np.int64)
    return np.asarray(np.arange(scores.shape[1]) == best[:, None])


def answer_ratios(metric: str, truth: Floats, multi_label: bool) -> Ratios:
    """Return accuracy, balanced accuracy or F1 as ratios of ``(3C,)`` totals.

    Args:
        metric: One of OF_ANSWERS.
        truth: ``(C,)`` examinations of each column; they say which classes take part.
        multi_label: Whether C is twice the labels.
    """
    columns = len(truth)
    right, called, present = (
        np.eye(3 * columns)[k * columns : (k + 1) * columns] for k in range(3)
    )
    there = truth > 0
    if metric == "accuracy":
        whole = np.ones(1) if there.any() else np.zeros(1)
        return Ratios(right.sum(axis=0)[None], present.sum(axis=0)[None], whole)
    if metric == "balanced-accuracy":
        if multi_label:
            there = np.tile(there[: columns // 2] & there[columns // 2 :], 2)
        return Ratios(right, present, _mean_over(there))
    if multi_label:
        there = there & (np.arange(columns) >= columns // 2)
    return Ratios(2 * right, present + called, _mean_over(there))


def class_ratio(metric: Ratios, index: int) -> Ratios:
    """Return one of a metric's ratios alone, e.g. the F1 of a class or its sensitivity."""
    weights = np.zeros(len(metric.weights))
    weights[index] = 1.0
    return Ratios(metric.numerators, metric.denominators, weights, metric.bounded)


def case_columns(values: Floats) -> Floats:
    """Return each case's numbers, ``(N, 2K)``: its value of each class or 0; whether it has one.

    Args:
        values: ``(N, K)``, NaN where a case has none.
    """
    known = ~np.isnan(values)
    return np.concatenate([np.where(known, values, 0.0), known.astype(np.float64)], axis=1)


def case_ratios(counts: Floats, bounded: bool = True) -> Ratios:
    """Return the mean over classes of the mean over cases as ratios of ``(2K,)`` totals.

    Args:
        counts: ``(K,)`` cases that have a value of each class.
        bounded: Whether values lie in [0, 1]: Dice and surface Dice do, HD95 does not.
    """
    classes = len(counts)
    totals, cases = np.eye(2 * classes)[:classes], np.eye(2 * classes)[classes:]
    return Ratios(totals, cases, _mean_over(counts > 0), bounded)


def _mean_over(there: Flags) -> Floats:
    return np.asarray(there / max(1, int(there.sum())))
