"""From predicted masks to the sums over cases that may leave a site."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.evaluation.surface_distances import measure_surfaces
from wardround.common.metrics.sums import SegmentationSums, SurfaceSums
from wardround.common.study.study import Study

Spacing = tuple[float, ...]


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
    present = truth > 0
    dice = np.divide(2.0 * right, truth + found, out=np.zeros(truth.shape), where=present)
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
