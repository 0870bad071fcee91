"""Segmentation: a class at every voxel; the target is a mask on the image's grid."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.tasks.surface_distances import measure_surfaces
from wardround.client.tasks.task import Box, Forward, PartsCounter, Spacing
from wardround.client.tasks.windows import (
    Windows,
    accepted_sizes,
    pad_around,
    slide_in_parts,
    slide_windows,
)
from wardround.common.metrics.noised.encoding import encode_dice
from wardround.common.metrics.segmentation import SegmentationSums, SurfaceSums
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.batch import Batch

Watch: TypeAlias = Callable[[Tensor, Tensor], None]
"""Is shown each batch's classes found and true, ``(B, *spatial)`` both, where they are scored."""

_CLASSES_OF_A_BYTE = 256
_VOXELS_OF_A_SLAB = 2**22  # 32 MB of int64: counting makes several copies of a slab


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
        images, windows = batch.images, _windows(study)
        if images is None:
            return forward(*batch.inputs)
        if windows is not None:
            return slide_windows(_of_cases(forward, batch), images, windows)
        padded, inside = pad_around(images, accepted_sizes(images.shape[2:], study))
        cases = torch.arange(len(images), device=images.device)
        return _of_cases(forward, batch)(padded, cases)[inside]

    def predict_in_parts(
        self, forward: Forward, batch: "Batch", study: Study
    ) -> Iterator[tuple[Box, Tensor]] | None:
        """Return parts of logits ``(B, K, *spatial)``, and where they lie; None without windows."""
        windows = _windows(study)
        if batch.images is None or windows is None:
            return None
        return slide_in_parts(_of_cases(forward, batch), batch.images, windows)

    def decide(self, outputs: Tensor, study: Study) -> Tensor:
        """Return the most likely classes ``(B, *spatial)``, int64."""
        return most_likely_classes(outputs)

    def bounded(self, outputs: Tensor, targets: Tensor, study: Study) -> NDArray[np.float64]:
        """Return the Dice of each foreground class that a mask holds, ``(B, 2 (K - 1))``."""
        found = most_likely_classes(outputs)
        confusion = _confusion(found, targets, study.class_count).cpu().numpy()
        dice, present = _case_dice(confusion)
        return encode_dice(dice[:, 1:], present[:, 1:])

    def bounded_labels(self, found: Tensor, truth: Tensor, study: Study) -> NDArray[np.float64]:
        """Return the same of one examination from classes ``(*spatial)``, ``(1, 2 (K - 1))``."""
        confusion = _confusion_in_slabs(found, truth, study.class_count)
        dice, present = _case_dice(confusion.cpu().numpy())
        return encode_dice(dice[:, 1:], present[:, 1:])

    def counter(self, study: Study, surfaces: bool) -> "SegmentationCounter":
        """Return a counter of a new evaluation."""
        return SegmentationCounter(study, surfaces)


def _windows(study: Study) -> Windows | None:
    """Return how windows slide; None where images are seen whole."""
    training = study.training
    if training.patch_size is None:
        return None
    return Windows(training.patch_size, study.evaluation.overlap, training.batch_size)


def _of_cases(forward: Forward, batch: "Batch") -> Callable[[Tensor, Tensor], Tensor]:
    """Return the outputs of windows, with the covariates of their examinations if there are any."""
    covariates = batch.covariates

    def of_cases(windows: Tensor, cases: Tensor) -> Tensor:
        inputs = (windows,) if covariates is None else (windows, covariates[cases])
        return forward(*inputs)

    return of_cases


class SegmentationCounter:
    """Counts each batch at once: logits of volumes are too large to be kept."""

    def __init__(self, study: Study, surfaces: bool, watch: Watch | None = None) -> None:
        self._study = study
        self._watch = watch
        self._empty = SegmentationSums.empty(study, surfaces)
        self._counted: list[tuple[Tensor, SurfaceSums | None]] = []

    def add(self, outputs: Tensor, targets: Tensor, spacings_mm: Sequence[Spacing] | None) -> None:
        """Count a batch: logits ``(B, K, *spatial)``, masks ``(B, *spatial)``."""
        found = most_likely_classes(outputs)
        self._add(_confusion(found, targets, self._study.class_count), found, targets, spacings_mm)

    def in_parts(self, targets: Tensor, keeps_classes: bool) -> "VoxelCounter":
        """Return a counter of one batch, masks ``(B, *spatial)``, whose logits come in parts."""
        keeps_classes = keeps_classes or self._watch is not None
        return VoxelCounter(targets, self._study.class_count, keeps_classes)

    def add_parts(self, parts: PartsCounter, spacings_mm: Sequence[Spacing] | None) -> None:
        """Count a batch of which all parts were taken in."""
        if not isinstance(parts, VoxelCounter):
            msg = "the parts were counted by another counter"
            raise TypeError(msg)
        self._add(parts.confusion, parts.found, parts.targets, spacings_mm)

    def add_labels(self, found: Tensor, truth: Tensor, spacing_mm: Spacing | None) -> None:
        """Count one examination on its image's own grid: ``(*spatial)`` classes each."""
        confusion = _confusion_in_slabs(found, truth, self._study.class_count)
        spacings = None if spacing_mm is None else [spacing_mm]
        self._add(confusion, found[None], truth[None], spacings)

    def _add(
        self,
        confusion: Tensor,
        found: Tensor | None,
        targets: Tensor,
        spacings_mm: Sequence[Spacing] | None,
    ) -> None:
        surface = None
        if self._watch is not None and found is not None:
            self._watch(found, targets)
        if spacings_mm is not None and found is not None:
            surface = _sum_surfaces(found, targets, self._study, spacings_mm)
        self._counted.append((confusion, surface))

    def sums(self) -> SegmentationSums:
        """Return the sums over all cases."""
        total, count = self._empty, 0
        if not self._counted:
            return total
        # They stay on the device until here: one transfer, not one a batch.
        sizes = [len(confusion) for confusion, _ in self._counted]
        together = torch.cat([confusion for confusion, _ in self._counted]).cpu()
        surfaces = [surface for _, surface in self._counted]
        for confusion, surface in zip(torch.split(together, sizes), surfaces, strict=True):
            total = total.plus(_sums_of(confusion.numpy(), surface), (count, len(confusion)))
            count += len(confusion)
        return total


class VoxelCounter:
    """Counts one batch whose logits come in parts."""

    def __init__(self, targets: Tensor, classes: int, keeps_classes: bool) -> None:
        self.targets = targets
        self.confusion = targets.new_zeros((len(targets), classes, classes))
        narrow = torch.uint8 if classes <= _CLASSES_OF_A_BYTE else torch.int16
        self.found = torch.empty_like(targets, dtype=narrow) if keeps_classes else None

    def add(self, place: Box, outputs: Tensor) -> Tensor:
        """Count a part: logits ``(B, K, *part)``; return its masks ``(B, *part)``."""
        cases, _, *spatial = place
        targets = self.targets[cases, *spatial]
        found = most_likely_classes(outputs)
        self.confusion += _confusion(found, targets, outputs.shape[1])
        if self.found is not None:
            self.found[cases, *spatial] = found.to(self.found.dtype)
        return targets


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
    surface = None
    if spacings_mm is not None:
        surface = _sum_surfaces(predicted, targets, study, spacings_mm)
    return _sums_of(confusion, surface)


def _sums_of(confusion: NDArray[np.int64], surface: SurfaceSums | None) -> SegmentationSums:
    """Return the sums over cases of ``(B, K, K)`` voxel counts, true by predicted."""
    right = np.diagonal(confusion, axis1=1, axis2=2)
    truth, found = confusion.sum(axis=2), confusion.sum(axis=1)
    dice, present = _case_dice(confusion)
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
    """Return ``(B, K, K)`` voxel counts of every case, true by predicted, in one pass.

    Voxels of the class index K are those that nobody annotated: they are counted apart and left.
    """
    cases, cells = len(targets), (classes + 1) * classes
    offset = torch.arange(cases, device=targets.device) * cells
    cell = (targets * classes + predicted).reshape(cases, -1) + offset[:, None]
    length = cases * cells
    if cell.device.type == "cpu":
        counts = torch.bincount(cell.flatten(), minlength=length)
    else:  # bincount looks at the smallest and the largest value, and waits for each
        one = cell.new_ones(()).expand(cell.numel())
        counts = cell.new_zeros(length).scatter_add_(0, cell.flatten(), one)
    return counts.reshape(cases, classes + 1, classes)[:, :classes]


def _confusion_in_slabs(found: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Return ``(1, K, K)`` as :func:`_confusion` of one image, a slab of it in memory at a time."""
    total = torch.zeros((1, classes, classes), dtype=torch.int64, device=found.device)
    rows = max(1, _VOXELS_OF_A_SLAB // max(1, found[:1].numel()))
    slabs = zip(torch.split(found, rows), torch.split(truth, rows), strict=True)
    for slab, true in slabs:
        total += _confusion(slab[None].long(), true[None].long(), classes)
    return total


def _sum_surfaces(
    predicted: Tensor, targets: Tensor, study: Study, spacings_mm: Sequence[Spacing]
) -> SurfaceSums:
    both = torch.stack([targets.to(predicted.dtype), predicted]).cpu().numpy()  # one transfer
    both[:, both[0] >= study.class_count] = 0  # nobody knows what lies there: no surface of either
    cases = zip(*both, spacings_mm, strict=True)
    measured = np.array([_measure_case(truth, found, study, mm) for truth, found, mm in cases])
    hd95, surface_dice = measured[:, 0], measured[:, 1]
    return SurfaceSums(
        np.nansum(hd95, axis=0),
        (~np.isnan(hd95)).sum(axis=0),
        np.nansum(surface_dice, axis=0),
        (~np.isnan(surface_dice)).sum(axis=0),
    )


def _measure_case(
    truth: NDArray[np.integer], found: NDArray[np.integer], study: Study, spacing_mm: Spacing
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
