"""What a site measured, as sums: adding two sites' sums measures the sites together.

No prediction of a single examination is needed to merge, so none has to leave a site.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import InputError
from wardround.common.study.study import Study

Counts = NDArray[np.int64]
Sums = NDArray[np.float64]


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

    confusion: Counts
    positives: Counts
    negatives: Counts
    ordered_pairs: Sums | None


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceSums:
    """Sums over cases of distances between surfaces, an entry a class, background included.

    Attributes:
        hd95: ``(K,)`` sum of the 95th-percentile Hausdorff distances, in mm.
        hd95_cases: ``(K,)`` cases where both the truth and the prediction hold the class.
        surface_dice: ``(K,)`` sum of the surface Dice at the study's tolerance.
        surface_dice_cases: ``(K,)`` cases where the truth holds the class; a class that was not
            predicted at all counts 0.
    """

    hd95: Sums
    hd95_cases: Counts
    surface_dice: Sums
    surface_dice_cases: Counts


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationSums:
    """Sums over the cases of a segmentation, an entry a class, background included.

    Attributes:
        dice: ``(K,)`` sum of the cases' Dice.
        dice_cases: ``(K,)`` cases where the truth holds the class; the others have no Dice, as in
            MONAI's ``DiceMetric`` and the Medical Segmentation Decathlon. What is wrongly found in
            those shows in ``false_positives``.
        true_positives: ``(K,)`` voxels.
        false_positives: ``(K,)`` voxels.
        false_negatives: ``(K,)`` voxels.
        case_moments: ``(3,)`` over cases with any foreground: their number, and the sum and the
            sum of squares of each case's Dice (mean over its foreground classes); the sampling
            error of a mean Dice follows from it.
        surface: None where surface distances were not measured.
    """

    dice: Sums
    dice_cases: Counts
    true_positives: Counts
    false_positives: Counts
    false_negatives: Counts
    case_moments: Sums
    surface: SurfaceSums | None


@dataclass(frozen=True, slots=True, eq=False)
class MetricSums:
    """Everything that is measured of one model on some examinations.

    Attributes:
        examinations: How many.
        loss: Sum of their losses.
        classification: Present for a classification.
        segmentation: Present for a segmentation.
    """

    examinations: int
    loss: float
    classification: ClassificationSums | None = None
    segmentation: SegmentationSums | None = None


def empty_sums(study: Study, surfaces: bool = False) -> MetricSums:
    """Return the sums over no examination: what every merge leaves unchanged."""
    classes = study.class_count
    if study.study.task == "classification":
        table = (classes, 2, 2) if study.data.multi_label else (classes, classes)
        bins = (classes, study.evaluation.score_bins)
        counted = ClassificationSums(
            _counts(*table), _counts(*bins), _counts(*bins), np.zeros(classes)
        )
        return MetricSums(0, 0.0, classification=counted)
    surface = SurfaceSums(np.zeros(classes), _counts(classes), np.zeros(classes), _counts(classes))
    measured = SegmentationSums(
        np.zeros(classes),
        _counts(classes),
        _counts(classes),
        _counts(classes),
        _counts(classes),
        np.zeros(3),
        surface if surfaces else None,
    )
    return MetricSums(0, 0.0, segmentation=measured)


def merge(a: MetricSums, b: MetricSums) -> MetricSums:
    """Return the sums over the examinations of both.

    The order of merging does not matter. What only one side measured is kept where the other
    side has no examinations, and dropped where it has: a mean must be over everybody or not be.

    Raises:
        InputError: They were measured for different studies.
    """
    examinations = a.examinations + b.examinations
    loss = a.loss + b.loss
    if a.classification is not None and b.classification is not None:
        counted = _merge_classification(a, b, a.classification, b.classification)
        return MetricSums(examinations, loss, classification=counted)
    if a.segmentation is not None and b.segmentation is not None:
        measured = _merge_segmentation(a, b, a.segmentation, b.segmentation)
        return MetricSums(examinations, loss, segmentation=measured)
    msg = "metrics of a classification and of a segmentation cannot be merged: use one study."
    raise InputError(msg)


def _counts(*shape: int) -> Counts:
    return np.zeros(shape, dtype=np.int64)


def _merge_classification(
    a: MetricSums, b: MetricSums, x: ClassificationSums, y: ClassificationSums
) -> ClassificationSums:
    _same_shape(x.confusion, y.confusion)
    _same_shape(x.positives, y.positives)
    # Pairs across two sites are never compared: U adds up only with a side that has no pairs.
    pairs = x.ordered_pairs if b.examinations == 0 else None
    if a.examinations == 0:
        pairs = y.ordered_pairs
    return ClassificationSums(
        x.confusion + y.confusion,
        x.positives + y.positives,
        x.negatives + y.negatives,
        pairs,
    )


def _merge_segmentation(
    a: MetricSums, b: MetricSums, x: SegmentationSums, y: SegmentationSums
) -> SegmentationSums:
    _same_shape(x.dice, y.dice)
    return SegmentationSums(
        x.dice + y.dice,
        x.dice_cases + y.dice_cases,
        x.true_positives + y.true_positives,
        x.false_positives + y.false_positives,
        x.false_negatives + y.false_negatives,
        x.case_moments + y.case_moments,
        _merge_surfaces(a, b, x.surface, y.surface),
    )


def _merge_surfaces(
    a: MetricSums, b: MetricSums, x: SurfaceSums | None, y: SurfaceSums | None
) -> SurfaceSums | None:
    if x is not None and y is not None:
        return SurfaceSums(
            x.hd95 + y.hd95,
            x.hd95_cases + y.hd95_cases,
            x.surface_dice + y.surface_dice,
            x.surface_dice_cases + y.surface_dice_cases,
        )
    if a.examinations == 0 and b.examinations == 0:
        return y if x is None else x
    if a.examinations == 0 or b.examinations == 0:
        return y if a.examinations == 0 else x
    return None


def _same_shape(x: Counts | Sums, y: Counts | Sums) -> None:
    if x.shape != y.shape:
        msg = (
            f"metrics of shape {x.shape} and {y.shape} cannot be merged: "
            "measure both with the same study (data.classes, evaluation.score_bins)."
        )
        raise InputError(msg)
