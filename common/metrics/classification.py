"""How a classification is measured: tables and histograms that add up, and their metrics."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.task_sums import (
    Arrays,
    Counts,
    MetricValue,
    Sums,
    TaskSums,
    check_same_shape,
    counts_of,
    divide,
    mean_over,
    no_counts,
    per_class,
    refuse,
    refuse_other_task,
    sums_of,
)
from wardround.common.study.study import Study

_Z95 = 1.959964  # two-sided 95 % point of the normal distribution


@dataclass(frozen=True, slots=True, eq=False)
class ClassificationSums:
    """Counts over the examinations of a classification with K classes.

    Attributes:
        confusion: ``(K, K)`` examinations, true class by predicted class; for multi-label
            ``(K, 2, 2)``, one such table a label.
        positives: ``(K, bins)`` histogram over [0, 1] of class k's score in the examinations
            that are of class k.
        negatives: ``(K, bins)`` the same in all the others.
        ordered_pairs: ``(K,)`` pairs of a positive and a negative that the score puts in the right
            order, a tie counting one half: the Mann-Whitney U, from which AUROC is exact. None once
            two sites are merged, whose scores were never compared.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset({"ordered_pairs"})

    confusion: Counts
    positives: Counts
    negatives: Counts
    ordered_pairs: Sums | None

    @classmethod
    def empty(cls, study: Study, surfaces: bool) -> "ClassificationSums":
        """Return the counts over no examination; a classification has no surfaces."""
        classes = study.class_count
        table = (classes, 2, 2) if study.data.multi_label else (classes, classes)
        bins = (classes, study.evaluation.score_bins)
        return cls(no_counts(*table), no_counts(*bins), no_counts(*bins), np.zeros(classes))

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], examinations: int
    ) -> "ClassificationSums":
        """Return the counts that came as arrays: each table counts the same examinations.

        Raises:
            InputError: They do not.
        """
        sums = cls(
            counts_of(arrays, "confusion"),
            counts_of(arrays, "positives"),
            counts_of(arrays, "negatives"),
            sums_of(arrays, "ordered_pairs") if "ordered_pairs" in arrays else None,
        )
        sums._check(examinations)
        return sums

    def _check(self, examinations: int) -> None:
        per_table, table_a_label = self.confusion.sum(axis=(-2, -1)), self.confusion.ndim == 3
        # A label that a site has not looked for is of none of its examinations.
        left_out = (per_table == 0) & table_a_label
        if ((per_table != examinations) & ~left_out).any():
            refuse("confusion", f"does not count the {examinations} examinations")
        truth = self.confusion[:, 1].sum(axis=1) if table_a_label else self.confusion.sum(axis=1)
        positives, negatives = self.positives.sum(axis=1), self.negatives.sum(axis=1)
        if (positives != truth).any() or (negatives != per_table - truth).any():
            fact = "do not count the examinations that confusion counts"
            refuse("positives, negatives", fact)
        pairs = self.ordered_pairs
        if pairs is not None and (pairs > positives.astype(float) * negatives).any():
            refuse("ordered_pairs", "is more than there are pairs")

    def to_arrays(self) -> Arrays:
        """Return the counts by name: int64, and the histograms, most of the bytes, int32."""
        arrays: Arrays = {
            "confusion": self.confusion,
            "positives": self.positives.astype(np.int32),
            "negatives": self.negatives.astype(np.int32),
        }
        if self.ordered_pairs is not None:
            arrays["ordered_pairs"] = self.ordered_pairs
        return arrays

    def plus(self, other: TaskSums, examinations: tuple[int, int]) -> "ClassificationSums":
        """Return the counts over the examinations of both.

        Raises:
            InputError: They were measured for different studies.
        """
        if not isinstance(other, ClassificationSums):
            refuse_other_task()
        check_same_shape(self.confusion, other.confusion)
        check_same_shape(self.positives, other.positives)
        # Pairs across two sites are never compared: U adds up only with a side that has no pairs.
        pairs = self.ordered_pairs if examinations[1] == 0 else None
        if examinations[0] == 0:
            pairs = other.ordered_pairs
        return ClassificationSums(
            self.confusion + other.confusion,
            self.positives + other.positives,
            self.negatives + other.negatives,
            pairs,
        )

    def summarise(self, metric: str, examinations: int, study: Study) -> Iterator[MetricValue]:
        """Yield a metric over all classes and then a class.

        Definitions, over K classes:

        - accuracy: the right share of the examinations; for multi-label of all (examination, label)
          pairs, that is 1 - Hamming loss.
        - balanced-accuracy: mean recall of the classes that occur; for multi-label the mean of
          (sensitivity + specificity) / 2 over labels that have both sides.
        - f1: mean over the classes that occur.
        - auroc: class 1 against class 0 for two classes; otherwise one-vs-rest, the mean over
          classes that have positives and negatives.
        """
        return _SUMMARIES[metric](self, examinations, study)

    def cells_behind(self, metric: str) -> Counts:
        """Return ``(K,)`` examinations of each class; for multi-label ``(K, 2)``, absent first."""
        return np.asarray(self.confusion.sum(axis=-1))


def auroc_from_sums(sums: ClassificationSums) -> tuple[Sums, Sums]:
    """Return each class's one-vs-rest AUROC and how far off it can be, ``(K,)`` each.

    AUROC is the share of (positive, negative) pairs that the score orders rightly, ties counting
    one half (Mann-Whitney U / PN). Where only histograms are known, pairs within one bin count
    one half, so the error is at most ``sum_b p_b n_b / (2 P N)``. NaN where P or N is 0.
    """
    positives, negatives = sums.positives.astype(float), sums.negatives.astype(float)
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    if sums.ordered_pairs is not None:
        return divide(sums.ordered_pairs, pairs), np.zeros(len(pairs))
    below = negatives.cumsum(axis=1) - negatives
    tied = (positives * negatives).sum(axis=1) / 2
    values = divide((positives * below).sum(axis=1) + tied, pairs)
    return values, np.nan_to_num(divide(tied, pairs))


def _accuracy(sums: ClassificationSums, examinations: int, study: Study) -> Iterator[MetricValue]:
    total = float(sums.confusion.sum())  # not whole where noise was added
    right = float(np.trace(sums.confusion, axis1=-2, axis2=-1).sum())
    yield MetricValue("accuracy", "", right / total if total else math.nan, examinations)


def _balanced_accuracy(
    sums: ClassificationSums, examinations: int, study: Study
) -> Iterator[MetricValue]:
    right = np.diagonal(sums.confusion, axis1=-2, axis2=-1)
    recall = divide(right, sums.confusion.sum(axis=-1))
    # A label without positives or without negatives has no balanced accuracy: NaN passes through.
    values = recall.mean(axis=1) if study.data.multi_label else recall
    overall = mean_over("balanced-accuracy", values, examinations)
    yield replace(overall, standard_error=_recall_error(sums.confusion, np.isfinite(values)))


def _f1(sums: ClassificationSums, examinations: int, study: Study) -> Iterator[MetricValue]:
    confusion = sums.confusion
    if study.data.multi_label:
        right, truth = confusion[:, 1, 1], confusion[:, 1].sum(axis=1)
        predicted = confusion[:, :, 1].sum(axis=1)
    else:
        right, truth, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    values = np.where(truth > 0, divide(2 * right, truth + predicted), math.nan)
    counted = np.isfinite(values)
    if study.data.multi_label:
        present = np.array([False, True])
        error = _mean_error(np.array([_f1_error(table, present) for table in confusion[counted]]))
    else:
        error = _f1_error(confusion, counted)
    yield replace(mean_over("f1", values, examinations), standard_error=error)
    yield from per_class("f1", study.data.classes, values, truth)


def _auroc(sums: ClassificationSums, examinations: int, study: Study) -> Iterator[MetricValue]:
    values, bounds = auroc_from_sums(sums)
    if study.class_count == 2 and not study.data.multi_label:
        support = 0 if np.isnan(values[1]) else examinations
        yield MetricValue("auroc", "", float(values[1]), support, float(bounds[1]))
        return
    defined = ~np.isnan(values)
    bound = float(bounds[defined].mean()) if defined.any() else 0.0
    overall = mean_over("auroc", values, examinations)
    yield MetricValue("auroc", "", overall.value, overall.support, bound)
    support_of_class = np.where(defined, sums.positives.sum(axis=1), 0)
    yield from per_class("auroc", study.data.classes, values, support_of_class, bounds)


def _recall_error(confusion: Counts, counted: NDArray[np.bool_]) -> float:
    """Return the standard error of a mean recall: each class's binomial error, then their mean.

    A recall is first drawn towards one half (Agresti and Coull 1998), since 4 right out of 4 is not
    known without error. The examinations count as independent.
    """
    right, cases = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1)
    centre = (right + _Z95**2 / 2) / (cases + _Z95**2)
    variances = divide(centre * (1 - centre), cases)
    if confusion.ndim == 3:  # of (sensitivity + specificity) / 2 of each label
        variances = variances.sum(axis=1) / 4
    return _mean_error(np.sqrt(variances[counted]))


def _f1_error(confusion: Counts, counted: NDArray[np.bool_]) -> float:
    """Return the standard error of a mean F1 over the counted classes, by the delta method.

    What is predicted for the examinations of one true class is multinomial; its shares are drawn
    towards equal ones first, as for a recall.
    """
    table = confusion.astype(float)
    cases = table.sum(axis=1)
    if not counted.any() or not cases.any():
        return 0.0
    both = np.maximum(cases + table.sum(axis=0), 1)
    slopes = np.broadcast_to(-2 * table.diagonal() / both**2, table.shape) + np.diag(2 / both)
    slopes = slopes * counted / counted.sum()
    shares = (table + _Z95**2 / len(table)) / (cases + _Z95**2)[:, None]
    spread = (shares * slopes**2).sum(axis=1) - (shares * slopes).sum(axis=1) ** 2
    return float(np.sqrt((cases * spread).sum()))


def _mean_error(errors: Sums) -> float:
    """Return the standard error of a mean of independent values."""
    return float(np.sqrt((errors**2).sum()) / len(errors)) if len(errors) else 0.0


_SUMMARIES: dict[str, Callable[[ClassificationSums, int, Study], Iterator[MetricValue]]] = {
    "accuracy": _accuracy,
    "balanced-accuracy": _balanced_accuracy,
    "f1": _f1,
    "auroc": _auroc,
}
