"""Segmentation: a class at every voxel; the target is a mask on the image's grid."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.tasks.surface_distances import measure_surfaces
from wardround.client.tasks.task import Forward, Spacing
from wardround.client.tasks.windows import accepted_sizes, pad_around, slide_windows
from wardround.common.metrics.noised import encode_dice
from wardround.common.metrics.segmentation import SegmentationSums, SurfaceSums
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.batch import Batch


class Segmentation:
    """A class at every voxel."""

    labels = None

    def cases_of_classes(self, targets: Tensor, study: Study) -> Tensor:
        """Return ``(K,)`` int64: examinations whose mask holds each class."""
        return targets.sum(0).long()

    def predict(self, forward: Forward, batch: "Batch", study: Study) -> Tensor:
        """Return the logits ``(B, K, *spatial)`` of whole images.

        Windows of ``training.patch_size`` slide over the images where it is set; otherwise each
        image is seen whole, padded to what the network can divide and cropped back. Covariates go
        with every window of their examination.
        """
        images, covariates = batch.images, batch.covariates
        if images is None:
            return forward(*batch.inputs)

        def of_cases(windows: Tensor, cases: Tensor) -> Tensor:
            inputs = (windows,) if covariates is None else (windows, covariates[cases])
            return forward(*inputs)

        patch, overlap = study.training.patch_size, study.evaluation.overlap
        if patch is not None:
            return slide_windows(of_cases, images, patch, overlap, study.training.batch_size)
        padded, inside = pad_around(images, accepted_sizes(images.shape[2:], study))
        return of_cases(padded, torch.arange(len(images), device=images.device))[inside]

    def decide(self, outputs: Tensor, study: Study) -> Tensor:
        """Return the most likely classes ``(B, *spatial)``, int64."""
        return most_likely_classes(outputs)

    def bounded(self, outputs: Tensor, targets: Tensor, study: Study) -> NDArray[np.float64]:
        """Return the Dice of each foreground class that a mask holds, ``(B, 2 (K - 1))``."""
        found = most_likely_classes(outputs)
        confusion = _confusion(found, targets, study.class_count).cpu().numpy()
        dice, present = _case_dice(confusion)
        return encode_dice(dice[:, 1:], present[:, 1:])

    def counter(self, study: Study, surfaces: bool) -> "SegmentationCounter":
        """Return a counter of a new evaluation."""
        return SegmentationCounter(study, surfaces)


class SegmentationCounter:
    """Counts each batch at once: logits of volumes are too large to be kept."""

    def __init__(self, study: Study, surfaces: bool) -> None:
        self._study = study
        self._sums = SegmentationSums.empty(study, surfaces)
        self._count = 0

    def add(self, outputs: Tensor, targets: Tensor, spacings_mm: Sequence[Spacing] | None) -> None:
        """Count a batch: logits ``(B, K, *spatial)``, masks ``(B, *spatial)``."""
        found = most_likely_classes(outputs)
        counted = count_segmentation(found, targets, self._study, spacings_mm)
        self._sums = self._sums.plus(counted, (self._count, len(targets)))
        self._count += len(targets)

    def sums(self) -> SegmentationSums:
        """Return the sums over all cases."""
        return self._sums


def most_likely_classes(logits: Tensor) -> Tensor:
    """Return the class of the largest logit, the first of equals: ``(B, K, *spatial)`` less K."""
    # Ten times as fast on the CPU as argmax over an axis that is not the last.
    largest = logits[:, 0]
    classes = torch.zeros(largest.shape, dtype=torch.int64, device=logits.device)
    for index in range(1, logits.shape[1]):
        classes = torch.where(logits[:, index] > largest, index, classes)
        largest = torch.maximum(largest, logits[:, index])
    return classes


def count_segmentation(
    predicted: Tensor, targets: Tensor, study: Study, spacings_mm: Sequence[Spacing] | None
) -> SegmentationSums:
    """Return the sums over a batch of cases.

    Args:
        predicted: ``(B, *spatial)`` int64 class indices.
        targets: ``(B, *spatial)`` int64 class indices.
        study: Says the classes and the surface tolerance.
        spacings_mm: The voxel size of each case; None leaves surfaces unmeasured.
    """
    confusion = _confusion(predicted, targets, study.class_count).cpu().numpy()
    right = np.diagonal(confusion, axis1=1, axis2=2)
    truth, found = confusion.sum(axis=2), confusion.sum(axis=1)
    dice, present = _case_dice(confusion)
    surface = None
    if spacings_mm is not None:
        surface = _sum_surfaces(predicted, targets, study, spacings_mm)
    return SegmentationSums(
        dice.sum(axis=0),
        present.sum(axis=0),
        right.sum(axis=0),
        (found - right).sum(axis=0),
        (truth - right).sum(axis=0),
        _case_moments(dice[:, 1:], present[:, 1:]),
        surface,
    )


def _case_dice(confusion: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return ``(B, K)`` each: the Dice, 0 where the mask holds nothing, and whether it does."""
    right = np.diagonal(confusion, axis1=1, axis2=2)
    truth, found = confusion.sum(axis=2), confusion.sum(axis=1)
    present = truth > 0
    dice = np.divide(2.0 * right, truth + found, out=np.zeros(truth.shape), where=present)
    return dice, present


def _case_moments(dice: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return number, sum and sum of squares of the cases' mean Dice over classes they hold."""
    classes = present.sum(axis=1)
    held = classes > 0
    means = dice.sum(axis=1)[held] / classes[held]
    return np.array([held.sum(), means.sum(), (means**2).sum()], dtype=np.float64)


def _confusion(predicted: Tensor, targets: Tensor, classes: int) -> Tensor:
    """Return ``(B, K, K)`` voxel counts of every case, true by predicted, in one pass."""
    cases = len(targets)
    offset = torch.arange(cases, device=targets.device) * classes**2
    cell = (targets * classes + predicted).reshape(cases, -1) + offset[:, None]
    counts = torch.bincount(cell.flatten(), minlength=cases * classes**2)
    return counts.reshape(cases, classes, classes)


def _sum_surfaces(
    predicted: Tensor, targets: Tensor, study: Study, spacings_mm: Sequence[Spacing]
) -> SurfaceSums:
    cases = zip(targets.cpu().numpy(), predicted.cpu().numpy(), spacings_mm, strict=True)
    measured = np.array([_measure_case(truth, found, study, mm) for truth, found, mm in cases])
    hd95, surface_dice = measured[:, 0], measured[:, 1]
    return SurfaceSums(
        np.nansum(hd95, axis=0),
        (~np.isnan(hd95)).sum(axis=0),
        np.nansum(surface_dice, axis=0),
        (~np.isnan(surface_dice)).sum(axis=0),
    )


def _measure_case(
    truth: NDArray[np.int64], found: NDArray[np.int64], study: Study, spacing_mm: Spacing
) -> NDArray[np.float64]:
    """Return ``(2, K)``: HD95 and surface Dice, NaN where undefined; the background always is."""
    measured = np.full((2, study.class_count), np.nan)
    for index in range(1, study.class_count):
        true_mask, found_mask = truth == index, found == index
        if not true_mask.any():
            continue
        if not found_mask.any():
            measured[1, index] = 0.0  # nothing of the true surface was found; a distance has no end
            continue
        surfaces = measure_surfaces(true_mask, found_mask, spacing_mm)
        tolerance_mm = study.evaluation.surface_tolerance_mm
        measured[:, index] = surfaces.hd95, surfaces.surface_dice(tolerance_mm)
    return measured
