"""mAP and FROC of one model on some images, with an interval whose unit is the patient.

Neither is a mean over patients, so that no formula gives the interval: patients are drawn anew, and
the counts of their images added up (:mod:`wardround.common.statistics.bootstrap`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from wardround.common.metrics.detection import DetectionSums
from wardround.common.statistics.bootstrap import bootstrap_interval, patient_weights
from wardround.common.statistics.interval import Interval, unknown_interval, unless_all_agree
from wardround.common.study.study import Study

METRICS_OF_BOXES = ("map50", "map", "froc")
_DRAWS = 400  # each takes some milliseconds: a metric reads thousands of counts
_DRAWS_AT_ONCE = 20


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """How one model found the boxes of N images.

    Attributes:
        patients: ``(N,)`` int64: which patient each is of.
        images: The counts of each.
    """

    patients: NDArray[np.int64]
    images: tuple[DetectionSums, ...]

    def together(self, study: Study) -> DetectionSums:
        """Return the counts of all images."""
        total = DetectionSums.empty(study, surfaces=False)
        for done, one in enumerate(self.images):
            total = total.plus(one, (done, 1))
        return total


@dataclass(frozen=True, slots=True, eq=False)
class DrawnMetrics:
    """The metrics of boxes, of all patients and of patients drawn anew.

    Attributes:
        values: By metric, each the mean over classes.
        drawn: By metric ``(B,)``; the same draw of the same patients for every model. Empty for
            fewer than two patients.
        patients: How many there are.
    """

    values: Mapping[str, float]
    drawn: Mapping[str, NDArray[np.float64]]
    patients: int

    def intervals(self) -> dict[str, Interval]:
        """Return each metric with its interval; of fewer than two patients it is unknown."""
        return {
            name: bootstrap_interval(value, self.drawn[name], self.patients)
            if self.drawn
            else unknown_interval(value, self.patients)
            for name, value in self.values.items()
        }

    def gains_over(self, other: "DrawnMetrics") -> dict[str, Interval]:
        """Return by how much each metric is better than another model's of the same patients."""
        if not self.drawn or self.patients != other.patients:
            return {}
        return {
            name: unless_all_agree(
                bootstrap_interval(
                    value - other.values[name], self.drawn[name] - other.drawn[name], self.patients
                )
            )
            for name, value in self.values.items()
        }


def draw_metrics(
    boxes: Boxes, study: Study, metrics: Sequence[str] = METRICS_OF_BOXES
) -> DrawnMetrics:
    """Return metrics of boxes for all patients and for patients drawn with replacement.

    Args:
        metrics: Among ``METRICS_OF_BOXES``; "map" takes ten times as long as "map50".
    """
    count, patients = len(boxes.images), len(np.unique(boxes.patients))
    values = _values(boxes.together(study), count, study, metrics)
    if patients < 2:
        return DrawnMetrics(values, {}, patients)
    drawn = [_values(sums, size, study, metrics) for sums, size in _drawn(boxes, study)]
    by_metric = {name: np.array([one[name] for one in drawn]) for name in values}
    return DrawnMetrics(values, by_metric, patients)


def box_intervals(boxes: Boxes, study: Study) -> dict[str, Interval]:
    """Return the metrics of boxes, each the mean over classes, with its interval.

    Where there are fewer than two patients, or hardly a box, the interval is unknown.
    """
    return draw_metrics(boxes, study).intervals()


def boxes_together(parts: Sequence[Boxes]) -> Boxes:
    """Return what a model found at several sites; no two of them share a patient."""
    starts = np.cumsum([0, *(int(part.patients.max(initial=-1)) + 1 for part in parts)])
    patients = [part.patients + start for part, start in zip(parts, starts, strict=False)]
    images = tuple(image for part in parts for image in part.images)
    return Boxes(np.concatenate(patients), images)


def _values(
    sums: DetectionSums, images: int, study: Study, metrics: Sequence[str]
) -> dict[str, float]:
    return {metric: next(iter(sums.summarise(metric, images, study))).value for metric in metrics}


def _drawn(boxes: Boxes, study: Study) -> Iterator[tuple[DetectionSums, int]]:
    """Yield the counts of patients drawn with replacement, and how many images they have."""
    shapes = [part.shape for part in astuple(DetectionSums.empty(study, surfaces=False))]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    counts = csr_matrix([_flat(one) for one in boxes.images])  # nearly all counts are 0
    _, numbers = np.unique(boxes.patients, return_inverse=True)
    weights = patient_weights(int(numbers.max()) + 1, _DRAWS).astype(np.int64)[:, numbers]
    for start in range(0, _DRAWS, _DRAWS_AT_ONCE):
        some = weights[start : start + _DRAWS_AT_ONCE]
        for row, drawn in zip(some @ counts, some, strict=True):
            parts = np.split(row, ends)
            arrays = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
            yield DetectionSums(*arrays), int(drawn.sum())


def _flat(sums: DetectionSums) -> NDArray[np.int64]:
    parts: Sequence[NDArray[np.int64]] = astuple(sums)
    return np.concatenate([part.ravel() for part in parts])
