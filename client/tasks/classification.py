"""Classification: one class an examination, or several where the study is multi-label."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.tasks.task import Forward, Label, Spacing, UnusableLabelError
from wardround.client.tasks.words import whole_number, word_among
from wardround.common.metrics.classification import ClassificationSums
from wardround.common.metrics.noised.encoding import encode_scores
from wardround.common.metrics.task_sums import Counts, Sums, TaskSums
from wardround.common.study.registry import NO_CLASS
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.batch import Batch

Mask = NDArray[np.bool_]


class ClassLabels:
    """Names of classes, or their indices."""

    def read(self, text: str, study: Study) -> Label:
        """Return one class index, or for multi-label one 0/1 a class.

        Args:
            text: A class name or index; for multi-label several, separated by ``;`` or ``|``, or
                ``none`` where no class applies.
            study: Says the classes, of which a name goes before an index.

        Raises:
            UnusableLabelError: It is empty, or none of the classes.
        """
        classes, multi_label = study.data.classes, study.data.multi_label
        if not text:
            remedy = "write the class, or 'none'" if multi_label else "write the class"
            fact = "the column label is empty"
            raise UnusableLabelError(fact, remedy)
        if not multi_label:
            return (_class_index(text, classes),)
        if text.lower() == NO_CLASS and text not in classes:
            return (0,) * len(classes)
        names = [part.strip() for part in text.replace("|", ";").split(";")]
        present = {_class_index(name, classes) for name in names if name}
        return tuple(int(index in present) for index in range(len(classes)))

    def stack(self, labels: Sequence[Label], study: Study) -> Tensor:
        """Return ``(N,)`` int64 class indices, or ``(N, K)`` float32 0/1 for multi-label."""
        if study.data.multi_label:
            return torch.tensor(labels, dtype=torch.float32).reshape(len(labels), study.class_count)
        return torch.tensor([label[0] for label in labels], dtype=torch.int64)


def _class_index(text: str, classes: Sequence[str]) -> int:
    word = word_among(text, classes)
    if word is not None:
        return classes.index(word)
    number = whole_number(text)  # 1.0 is how a spreadsheet or a data frame writes 1
    if number is not None and number < len(classes):
        return number
    fact = "the column label names no class of the study"
    remedy = f"write one of {', '.join(classes)}, or an index from 0 to {len(classes) - 1}"
    raise UnusableLabelError(fact, remedy)


class Classification:
    """One class an examination, or several where the study is multi-label."""

    labels = ClassLabels()

    def cases_of_classes(self, targets: Tensor, study: Study) -> Tensor:
        """Return ``(K,)`` int64 examinations of each class."""
        if study.data.multi_label:
            return targets.sum(0).long()
        return torch.bincount(targets, minlength=study.class_count)

    def predict(self, forward: Forward, batch: "Batch", study: Study) -> Tensor:
        """Return the logits ``(B, K)`` of whole images, or of the rows of a table."""
        return forward(*batch.inputs)

    def decide(self, outputs: Tensor, study: Study) -> Tensor:
        """Return ``(B,)`` class indices, or ``(B, K)`` 0/1: a label from a score of one half on."""
        return (outputs >= 0).float() if study.data.multi_label else outputs.argmax(1)

    def bounded(self, outputs: Tensor, targets: Tensor, study: Study) -> NDArray[np.float64]:
        """Return into which bin each score of an examination falls, ``(B, D - 2)``."""
        scores, truth = scores_and_truth(outputs.cpu(), targets.cpu(), study)
        return encode_scores(scores, truth, study)

    def counter(self, study: Study, surfaces: bool) -> "CountsAtTheEnd":
        """Return a counter of a new evaluation; there are no surfaces."""
        return CountsAtTheEnd(lambda found, truth: count_classification(found, truth, study))


class CountsAtTheEnd:
    """A counter of what needs all examinations of a site at once, as AUROC compares every two.

    Everything stays on the device until the end: one transfer, not one a batch.
    """

    def __init__(self, count: Callable[[Tensor, Tensor], TaskSums]) -> None:
        """Args: count: From all outputs ``(N, ...)`` and targets ``(N, ...)``, on the CPU."""
        self._count = count
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, outputs: Tensor, targets: Tensor, spacings_mm: Sequence[Spacing] | None) -> None:
        """Keep a batch."""
        self._outputs.append(outputs)
        self._targets.append(targets)

    def sums(self) -> TaskSums:
        """Return what was counted over all examinations."""
        return self._count(torch.cat(self._outputs).cpu(), torch.cat(self._targets).cpu())


def count_classification(logits: Tensor, targets: Tensor, study: Study) -> ClassificationSums:
    """Return the counts over all examinations of one site.

    Args:
        logits: ``(N, K)``, finite, on the CPU. A score is their softmax, for multi-label their
            sigmoid; a label is predicted from a score of one half on.
        targets: ``(N,)`` class indices, or ``(N, K)`` 0/1 for multi-label.
        study: Says the classes and the bins of scores.
    """
    classes = study.class_count
    scores, truth = scores_and_truth(logits, targets, study)
    if study.data.multi_label:
        confusion = _label_tables(truth, scores >= 0.5)
    else:
        cell = targets.numpy() * classes + scores.argmax(axis=1)
        confusion = np.bincount(cell, minlength=classes**2).reshape(classes, classes)
    bins = study.evaluation.score_bins
    return ClassificationSums(
        confusion,
        _histograms(scores, truth, bins),
        _histograms(scores, ~truth, bins),
        _ordered_pairs(scores, truth),
    )


def scores_and_truth(logits: Tensor, targets: Tensor, study: Study) -> tuple[Sums, Mask]:
    """Return ``(N, K)`` scores, and of which classes each examination is."""
    # float64 keeps confident examinations apart that float32 would tie at a score of 1.
    if study.data.multi_label:
        return torch.sigmoid(logits.double()).numpy(), targets.numpy() > 0.5
    scores = torch.softmax(logits.double(), dim=1).numpy()
    return scores, targets.numpy()[:, None] == np.arange(study.class_count)


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
