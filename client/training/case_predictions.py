"""What a model says of each examination. Nothing of it may leave a hospital: sums may.

The intervals of a report need it: how much patients differ is not known from a mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.tasks.classification import scores_and_truth
from wardround.client.tasks.detection import DetectionCounter
from wardround.client.tasks.lesions import Lesions, count_lesions
from wardround.client.tasks.regression import in_range
from wardround.client.tasks.segmentation import SegmentationCounter
from wardround.client.tasks.survival import alive_at, hazards_up_to, risks_of
from wardround.client.training.evaluation import Evaluated, evaluate_with, evaluating, predict
from wardround.client.training.losses.registry import build_loss
from wardround.common.metrics.censoring import CensoredCases, censored_cases, no_cases
from wardround.common.metrics.detection import DetectionSums
from wardround.common.metrics.segmentation import SegmentationSums
from wardround.common.metrics.sums import has_surfaces
from wardround.common.metrics.survival import at_horizon, time_edges
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.manifest.examination import Examination
    from wardround.client.data.preprocessing.case import StoredMask

Floats = NDArray[np.float64]
_CPU = torch.device("cpu")


class Examined(Evaluated, Protocol):
    """A cohort whose examinations are answered one by one, or a part of it with other images."""

    @property
    def examinations(self) -> "tuple[Examination, ...]":
        """Where they stand in the site's manifest."""

    @property
    def patients(self) -> Tensor:
        """``(N,)`` int64: which patient each is of."""

    @property
    def targets(self) -> Tensor:
        """``(N, ...)``, what is to be found in each."""

    def class_counts(self) -> Tensor | None:
        """Return ``(K,)`` int64: examinations of each class, or voxels of masks."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassifiedCases:
    """N examinations and what one model answered, for a classification with K classes.

    Attributes:
        rows: ``(N,)`` int64 rows of the site's manifest.
        patients: ``(N,)`` int64: which patient each is of, counted from 0.
        scores: ``(N, K)`` in [0, 1]: the softmax; for multi-label the sigmoid of each label.
        truth: ``(N, K)`` which classes each is of.
    """

    rows: NDArray[np.int64]
    patients: NDArray[np.int64]
    scores: Floats
    truth: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentedCases:
    """N examinations and how well one model marked them; K classes, background included.

    Attributes:
        rows: ``(N,)`` int64 rows of the site's manifest.
        patients: ``(N,)`` int64: which patient each is of, counted from 0.
        dice: ``(N, K)``; NaN where the truth lacks the class.
        hd95_mm: ``(N, K)``; NaN where truth or prediction lack the class, or not measured.
        surface_dice: ``(N, K)``; NaN where the truth lacks the class, or not measured.
        truth_voxels: ``(N, K)`` int64 voxels of the class on the grid where Dice is scored.
        found_voxels: ``(N, K)`` int64 voxels that the model marked.
        voxel_ml: ``(N,)`` millilitres a voxel of that grid (for 2D: of a slice 1 mm thick).
        lesions: N mappings from a class index to its lesions; a class lacks where they were not
            counted: not asked for, or in too many parts.
    """

    rows: NDArray[np.int64]
    patients: NDArray[np.int64]
    dice: Floats
    hd95_mm: Floats
    surface_dice: Floats
    truth_voxels: NDArray[np.int64]
    found_voxels: NDArray[np.int64]
    voxel_ml: Floats
    lesions: tuple[Mapping[int, Lesions], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class OutcomeCases:
    """N examinations and what one model answered, for a task without classes; ``(N,)`` each.

    Attributes:
        rows: Rows of the site's manifest.
        patients: Which patient each is of, counted from 0.
        truth: The number in the study's unit, or the time, cut at the horizon.
        events: Whether it is the time of an event; true of a number.
        estimates: The number in the study's unit, cut to the range; or the risk in [0, 1].
        hazards: The cumulative hazard up to the time; 0 where there is none.
        errors: How far off the probabilities of no event are, weighted for censoring.
    """

    rows: NDArray[np.int64]
    patients: NDArray[np.int64]
    truth: Floats
    events: NDArray[np.bool_]
    estimates: Floats
    hazards: Floats
    errors: CensoredCases


def outcome_cases(
    network: nn.Module, cohort: Examined, study: Study, device: torch.device = _CPU
) -> OutcomeCases:
    """Return a model's answers of every examination of a cohort, which may be empty."""
    outputs, targets = logits_of(network, cohort, study, device), cohort.targets
    rows, patients = _rows(cohort), cohort.patients.numpy()
    if study.task.outcome == "time":
        numbers = targets.double().numpy()
        times, events = at_horizon(numbers[:, 0], numbers[:, 1] > 0, study.outcome.times[-1])
        risks, hazards = risks_of(outputs, study), hazards_up_to(outputs, times, study)
        alive = alive_at(outputs, study)
        errors = no_cases(len(rows))
        if alive is not None:
            errors = censored_cases(times, events, alive, time_edges(study))
        return OutcomeCases(rows, patients, times, events, risks, hazards, errors)
    low, width = study.outcome.low, study.outcome.width
    truth, found = (
        np.clip(in_range(one, study), 0.0, 1.0) * width + low for one in (targets, outputs)
    )
    nothing = np.zeros(len(rows))
    return OutcomeCases(rows, patients, truth, nothing == 0, found, nothing, no_cases(len(rows)))


def found_cases(
    network: nn.Module, cohort: Examined, study: Study, device: torch.device = _CPU
) -> tuple[DetectionSums, ...]:
    """Return how a model found the boxes of every examination of a cohort, which may be empty."""
    each = []
    with evaluating(network):
        for index in range(len(cohort)):
            batch, counter = cohort.case(index, device), DetectionCounter(study)
            counter.add(predict(network, batch, study), batch.targets, None)
            each.append(counter.sums())
    return tuple(each)


def classified_cases(
    network: nn.Module, cohort: Examined, study: Study, device: torch.device = _CPU
) -> ClassifiedCases:
    """Return a model's scores of every examination of a cohort.

    Args:
        network: On the device, with the model's numbers; its mode is the same afterwards.
        cohort: May be empty.
    """
    logits = logits_of(network, cohort, study, device)
    scores, truth = scores_and_truth(logits, cohort.targets, study)
    return ClassifiedCases(_rows(cohort), cohort.patients.numpy(), scores, truth)


def logits_of(
    network: nn.Module, cohort: Examined, study: Study, device: torch.device = _CPU
) -> Tensor:
    """Return ``(N, K)`` float32 outputs of whole examinations, on the CPU, in order."""
    size, found = study.training.batch_size, []
    if study.data.kind == "image" and study.data.size is None:
        size = 1  # images may differ in size
    with evaluating(network):
        for start in range(0, len(cohort), size):
            indices = torch.arange(start, min(start + size, len(cohort)))
            found.append(predict(network, cohort.batch(indices, device=device), study).cpu())
    return torch.cat(found) if found else torch.zeros((0, study.output_count))


def segmented_cases(
    network: nn.Module,
    cohort: Examined,
    study: Study,
    device: torch.device = _CPU,
    surfaces: bool = False,
    lesions: bool = False,
) -> SegmentedCases:
    """Return how well a model marks every examination of a cohort, each scored as in a round.

    Args:
        network: On the device, with the model's numbers; its mode is the same afterwards.
        cohort: May be empty.
        surfaces: Measure HD95 and surface Dice too, which takes far longer than the network.
        lesions: Count the lesions of each class.
    """
    counts = cohort.class_counts() if study.training.class_weights == "balanced" else None
    loss = build_loss(study, counts, device)
    each, counted = [], []
    surfaces = surfaces and has_surfaces(study)
    for index in range(len(cohort)):
        one, seen = _OneCase(cohort, index), _LesionCount(study.class_count)
        counter = SegmentationCounter(study, surfaces, seen if lesions else None)
        measured = evaluate_with(network, one, study, device, loss, (counter, surfaces))
        counted.append(seen.of_class)
        if not isinstance(measured.measured, SegmentationSums):
            msg = "a segmentation was measured as another task"
            raise TypeError(msg)
        each.append(measured.measured)
    classes = study.class_count
    hits = _stacked([one.true_positives for one in each], classes)
    return SegmentedCases(
        rows=_rows(cohort),
        patients=cohort.patients.numpy(),
        dice=_defined([(one.dice, one.dice_cases) for one in each], classes),
        hd95_mm=_defined([_hd95(one) for one in each], classes),
        surface_dice=_defined([_surface_dice(one) for one in each], classes),
        truth_voxels=(hits + _stacked([one.false_negatives for one in each], classes)).astype(int),
        found_voxels=(hits + _stacked([one.false_positives for one in each], classes)).astype(int),
        voxel_ml=np.array([_voxel_ml(cohort, index) for index in range(len(cohort))]),
        lesions=tuple(counted),
    )


class _LesionCount:
    """Counts the lesions of one examination, when it is shown what was found."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self.of_class: dict[int, Lesions] = {}

    def __call__(self, found: Tensor, truth: Tensor) -> None:
        marked, true = found[0].cpu().numpy(), truth[0].cpu().numpy()
        known = true < self._classes
        for k in range(1, self._classes):
            counted = count_lesions(true == k, (marked == k) & known)
            if counted is not None:
                self.of_class[k] = counted


class _OneCase:
    """One examination of a cohort, as a cohort that is evaluated."""

    def __init__(self, cohort: Examined, index: int) -> None:
        self._cohort = cohort
        self._index = index

    def __len__(self) -> int:
        return 1

    def case(self, index: int, device: torch.device = _CPU) -> Batch:
        return self._cohort.case(self._index, device)

    def batch(
        self, indices: Tensor, generator: torch.Generator | None = None, device: torch.device = _CPU
    ) -> Batch:
        return self._cohort.case(self._index, device)

    def spacing(self, index: int) -> tuple[float, ...]:
        return self._cohort.spacing(self._index)

    def stored_mask(self, index: int) -> "StoredMask | None":
        return self._cohort.stored_mask(self._index)


def _rows(cohort: Examined) -> NDArray[np.int64]:
    return np.array([examination.row for examination in cohort.examinations], dtype=np.int64)


def _hd95(sums: SegmentationSums) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    if sums.surface is None:
        return np.zeros(len(sums.dice)), np.zeros(len(sums.dice))
    return sums.surface.hd95, sums.surface.hd95_cases


def _surface_dice(sums: SegmentationSums) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    if sums.surface is None:
        return np.zeros(len(sums.dice)), np.zeros(len(sums.dice))
    return sums.surface.surface_dice, sums.surface.surface_dice_cases


def _defined(
    pairs: Sequence[tuple[NDArray[np.generic], NDArray[np.generic]]], classes: int
) -> Floats:
    """Return ``(N, K)`` values, NaN where an examination has none."""
    totals = _stacked([total for total, _ in pairs], classes)
    counted = _stacked([count for _, count in pairs], classes)
    return np.where(counted > 0, totals, np.nan)


def _stacked(arrays: Sequence[NDArray[np.generic]], classes: int) -> Floats:
    return np.asarray(arrays, dtype=np.float64).reshape(len(arrays), classes)


def _voxel_ml(cohort: Examined, index: int) -> float:
    stored = cohort.stored_mask(index)
    sides_mm = cohort.spacing(index) if stored is None else stored.spacing_mm
    return float(np.prod(sides_mm)) / 1000.0
