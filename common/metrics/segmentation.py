"""How a segmentation is measured: sums over cases that add up, and their metrics."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
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

_ROUNDING = 1 + 1e-9  # a sum of float64 numbers may pass its bound by so much


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

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()

    dice: Sums
    dice_cases: Counts
    true_positives: Counts
    false_positives: Counts
    false_negatives: Counts
    case_moments: Sums
    surface: SurfaceSums | None

    @classmethod
    def empty(cls, study: Study, surfaces: bool) -> "SegmentationSums":
        """Return the sums over no case."""
        nothing, none = np.zeros(study.class_count), no_counts(study.class_count)
        surface = SurfaceSums(nothing, none, nothing, none) if surfaces else None
        return cls(nothing, none, none, none, none, np.zeros(3), surface)

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], examinations: int
    ) -> "SegmentationSums":
        """Return the sums that came as arrays: no mean is above 1, no class has too many cases.

        Raises:
            InputError: No cases can give these sums.
        """
        surface = None
        if "hd95" in arrays:
            surface = SurfaceSums(
                sums_of(arrays, "hd95"),
                counts_of(arrays, "hd95_cases"),
                sums_of(arrays, "surface_dice"),
                counts_of(arrays, "surface_dice_cases"),
            )
        sums = cls(
            sums_of(arrays, "dice"),
            counts_of(arrays, "dice_cases"),
            counts_of(arrays, "true_positives"),
            counts_of(arrays, "false_positives"),
            counts_of(arrays, "false_negatives"),
            sums_of(arrays, "case_moments"),
            surface,
        )
        sums._check(examinations)
        return sums

    def _check(self, examinations: int) -> None:
        means = [("dice", self.dice, self.dice_cases)]
        cases = [self.dice_cases]
        if self.surface is not None:
            surface = self.surface
            means.append(("surface_dice", surface.surface_dice, surface.surface_dice_cases))
            cases += [surface.surface_dice_cases, surface.hd95_cases]
            if (surface.hd95[surface.hd95_cases == 0] > 0).any():
                refuse("hd95", "is a sum over no case")
        if any((counts > examinations).any() for counts in cases):
            fact = f"is more than the {examinations} examinations"
            refuse("a number of cases", fact)
        number, first, second = self.case_moments
        if number > examinations or first > number * _ROUNDING or second > first * _ROUNDING:
            refuse("case_moments", f"cannot be those of {examinations} examinations")
        for name, total, counts in means:
            if (total > counts * _ROUNDING).any():
                refuse(name, "has a mean above 1")

    def to_arrays(self) -> Arrays:
        """Return the sums by name: float64, and int64 for counts; surfaces only if measured."""
        parts = (self,) if self.surface is None else (self, self.surface)
        return {
            field.name: getattr(part, field.name)
            for part in parts
            for field in fields(part)
            if field.name != "surface"
        }

    def plus(self, other: TaskSums, examinations: tuple[int, int]) -> "SegmentationSums":
        """Return the sums over the cases of both.

        Raises:
            InputError: They were measured for different studies.
        """
        if not isinstance(other, SegmentationSums):
            refuse_other_task()
        check_same_shape(self.dice, other.dice)
        return SegmentationSums(
            self.dice + other.dice,
            self.dice_cases + other.dice_cases,
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
            self.case_moments + other.case_moments,
            _merge_surfaces(self.surface, other.surface, examinations),
        )

    def summarise(self, metric: str, examinations: int, study: Study) -> Iterator[MetricValue]:
        """Yield a metric as the mean over foreground classes of the mean over cases, then a class.

        Surface metrics are absent where surfaces were not measured.
        """
        if metric == "dice":
            overall, *each = _foreground(metric, study, self.dice, self.dice_cases)
            yield replace(overall, standard_error=_standard_error(self.case_moments))
            yield from each
        elif self.surface is not None:
            yield from _foreground(metric, study, *_SURFACE_METRICS[metric](self.surface))

    def cells_behind(self, metric: str) -> Counts:
        """Return ``(K - 1,)``: how many cases each foreground class has for a metric."""
        if metric == "dice" or self.surface is None:
            return self.dice_cases[1:]
        return _SURFACE_METRICS[metric](self.surface)[1][1:]


_SURFACE_METRICS: dict[str, Callable[[SurfaceSums], tuple[Sums, Counts]]] = {
    "hd95": lambda surface: (surface.hd95, surface.hd95_cases),
    "surface-dice": lambda surface: (surface.surface_dice, surface.surface_dice_cases),
}


def _merge_surfaces(
    x: SurfaceSums | None, y: SurfaceSums | None, examinations: tuple[int, int]
) -> SurfaceSums | None:
    if x is not None and y is not None:
        return SurfaceSums(
            x.hd95 + y.hd95,
            x.hd95_cases + y.hd95_cases,
            x.surface_dice + y.surface_dice,
            x.surface_dice_cases + y.surface_dice_cases,
        )
    if examinations == (0, 0):
        return y if x is None else x
    if 0 in examinations:
        return y if examinations[0] == 0 else x
    return None


def _foreground(metric: str, study: Study, totals: Sums, cases: Counts) -> Iterator[MetricValue]:
    values, cases = divide(totals, cases)[1:], cases[1:]
    yield mean_over(metric, values, round(float(cases.max(initial=0))))
    yield from per_class(metric, study.data.classes[1:], values, cases)


def _standard_error(moments: Sums) -> float:
    """Return the standard error of a mean from number, sum and sum of squares; 0 if unknown."""
    number, first, second = moments
    if number < 2:
        return 0.0
    variance = max(0.0, second - first**2 / number) / (number - 1)
    return math.sqrt(variance / number)
