"""Metrics of the catalogue, out of sums that were measured at one site or merged over several.

The value over all classes has class name ""; a value that is not defined is NaN with support 0.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from wardround.common.errors import InputError
from wardround.common.metrics.arrays import from_arrays, sums_from_record, sums_to_record, to_arrays
from wardround.common.metrics.sums import (
    ClassificationSums,
    Counts,
    MetricSums,
    SegmentationSums,
    Sums,
    empty_sums,
    merge,
)
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study

__all__ = [
    "MetricSums",
    "MetricValue",
    "empty_sums",
    "from_arrays",
    "merge",
    "summarise",
    "sums_from_record",
    "sums_to_record",
    "to_arrays",
]


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One metric of one class, or over all classes.

    Attributes:
        metric: A key of the catalogue's METRICS.
        class_name: One class, or "" over all classes.
        value: NaN where it is not defined.
        support: Examinations (for a segmentation: cases) behind the value. Of one class: those
            of the class; over all classes of a segmentation: those of the most frequent class.
        error_bound: Largest possible error from binning scores; 0 where exact.
        standard_error: Sampling error of a mean over cases; 0 where it is not computed.
    """

    metric: str
    class_name: str
    value: float
    support: int
    error_bound: float = 0.0
    standard_error: float = 0.0


def summarise(sums: MetricSums, study: Study) -> tuple[MetricValue, ...]:
    """Return every metric of the study's task, each over all classes and then a class.

    Surface metrics are absent where surfaces were not measured. Definitions, over K classes:

    - accuracy: the right share of the examinations; for multi-label of all (examination, label)
      pairs, that is 1 - Hamming loss.
    - balanced-accuracy: mean recall of the classes that occur; for multi-label the mean of
      (sensitivity + specificity) / 2 over labels that have both sides.
    - f1: mean over the classes that occur.
    - auroc: class 1 against class 0 for two classes; otherwise one-vs-rest, the mean over classes
      that have positives and negatives.
    - dice, hd95, surface-dice: mean over foreground classes of the mean over the class's cases.
    """
    task = study.study.task
    return tuple(
        value
        for name, entry in METRICS.items()
        if task in entry.tasks
        for value in _SUMMARIES[name](sums, study)
    )


def _loss(sums: MetricSums, study: Study) -> Iterator[MetricValue]:
    count = sums.examinations
    yield MetricValue("loss", "", sums.loss / count if count else math.nan, count)


def _accuracy(sums: MetricSums, study: Study) -> Iterator[MetricValue]:
    counted = _classification(sums)
    total = int(counted.confusion.sum())
    right = int(np.trace(counted.confusion, axis1=-2, axis2=-1).sum())
    yield MetricValue("accuracy", "", right / total if total else math.nan, sums.examinations)


def _balanced_accuracy(sums: MetricSums, study: Study) -> Iterator[MetricValue]:
    confusion = _classification(sums).confusion
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    recall = _divide(right, confusion.sum(axis=-1))
    # A label without positives or without negatives has no balanced accuracy: NaN passes through.
    values = recall.mean(axis=1) if study.data.multi_label else recall
    yield _mean_over("balanced-accuracy", values, sums.examinations)


def _f1(sums: MetricSums, study: Study) -> Iterator[MetricValue]:
    confusion = _classification(sums).confusion
    if study.data.multi_label:
        right, truth = confusion[:, 1, 1], confusion[:, 1].sum(axis=1)
        predicted = confusion[:, :, 1].sum(axis=1)
    else:
        right, truth, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    values = np.where(truth > 0, _divide(2 * right, truth + predicted), math.nan)
    yield _mean_over("f1", values, sums.examinations)
    yield from _per_class("f1", study.data.classes, values, truth)


def _auroc(sums: MetricSums, study: Study) -> Iterator[MetricValue]:
    counted = _classification(sums)
    values, bounds = auroc_from_sums(counted)
    if study.class_count == 2 and not study.data.multi_label:
        support = 0 if np.isnan(values[1]) else sums.examinations
        yield MetricValue("auroc", "", float(values[1]), support, float(bounds[1]))
        return
    defined = ~np.isnan(values)
    bound = float(bounds[defined].mean()) if defined.any() else 0.0
    overall = _mean_over("auroc", values, sums.examinations)
    yield MetricValue("auroc", "", overall.value, overall.support, bound)
    support_of_class = np.where(defined, counted.positives.sum(axis=1), 0)
    yield from _per_class("auroc", study.data.classes, values, support_of_class, bounds)


def auroc_from_sums(sums: ClassificationSums) -> tuple[Sums, Sums]:
    """Return each class's one-vs-rest AUROC and how far off it can be, ``(K,)`` each.

    AUROC is the share of (positive, negative) pairs that the score orders rightly, ties counting
    one half (Mann-Whitney U / PN). Where only histograms are known, pairs within one bin count
    one half, so the error is at most ``sum_b p_b n_b / (2 P N)``. NaN where P or N is 0.
    """
    positives, negatives = sums.positives.astype(float), sums.negatives.astype(float)
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    if sums.ordered_pairs is not None:
        return _divide(sums.ordered_pairs, pairs), np.zeros(len(pairs))
    below = negatives.cumsum(axis=1) - negatives
    tied = (positives * negatives).sum(axis=1) / 2
    values = _divide((positives * below).sum(axis=1) + tied, pairs)
    return values, np.nan_to_num(_divide(tied, pairs))


def _dice(sums: MetricSums, study: Study) -> Iterator[MetricValue]:
    measured = _segmentation(sums)
    overall, *per_class = _foreground("dice", study, measured.dice, measured.dice_cases)
    yield replace(overall, standard_error=_standard_error(measured.case_moments))
    yield from per_class


def _hd95(sums: MetricSums, study: Study) -> Iterator[MetricValue]:
    surface = _segmentation(sums).surface
    if surface is not None:
        yield from _foreground("hd95", study, surface.hd95, surface.hd95_cases)


def _surface_dice(sums: MetricSums, study: Study) -> Iterator[MetricValue]:
    surface = _segmentation(sums).surface
    if surface is not None:
        totals, cases = surface.surface_dice, surface.surface_dice_cases
        yield from _foreground("surface-dice", study, totals, cases)


def _foreground(metric: str, study: Study, totals: Sums, cases: Counts) -> Iterator[MetricValue]:
    values, cases = _divide(totals, cases)[1:], cases[1:]
    yield _mean_over(metric, values, int(cases.max(initial=0)))
    yield from _per_class(metric, study.data.classes[1:], values, cases)


def _standard_error(moments: Sums) -> float:
    """Return the standard error of a mean from number, sum and sum of squares; 0 if unknown."""
    number, first, second = moments
    if number < 2:
        return 0.0
    variance = max(0.0, second - first**2 / number) / (number - 1)
    return math.sqrt(variance / number)


def _mean_over(metric: str, values: Sums, support: int) -> MetricValue:
    defined = values[~np.isnan(values)]
    if not len(defined):
        return MetricValue(metric, "", math.nan, 0)
    return MetricValue(metric, "", float(defined.mean()), support)


def _per_class(
    metric: str,
    names: tuple[str, ...],
    values: Sums,
    support: Counts,
    bounds: Sums | None = None,
) -> Iterator[MetricValue]:
    bounds = np.zeros(len(names)) if bounds is None else bounds
    for name, value, count, bound in zip(names, values, support, bounds, strict=True):
        yield MetricValue(metric, name, float(value), int(count), float(bound))


def _divide(numerator: Counts | Sums, denominator: Counts | Sums) -> Sums:
    """Return the quotient, NaN where the denominator is 0."""
    undefined = np.full(np.shape(denominator), math.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def _classification(sums: MetricSums) -> ClassificationSums:
    if sums.classification is None:
        msg = _OTHER_TASK.format("classification")
        raise InputError(msg)
    return sums.classification


def _segmentation(sums: MetricSums) -> SegmentationSums:
    if sums.segmentation is None:
        msg = _OTHER_TASK.format("segmentation")
        raise InputError(msg)
    return sums.segmentation


_OTHER_TASK = "these metrics were not measured for a {}: use the study they belong to."

_SUMMARIES: dict[str, Callable[[MetricSums, Study], Iterator[MetricValue]]] = {
    "loss": _loss,
    "accuracy": _accuracy,
    "balanced-accuracy": _balanced_accuracy,
    "f1": _f1,
    "auroc": _auroc,
    "dice": _dice,
    "hd95": _hd95,
    "surface-dice": _surface_dice,
}
