"""``detections.csv``: scores of the boxes that models found in the test images, as counts a bin.

``detection-intervals.csv`` has the metrics of the same boxes, with intervals over patients.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wardround.common.files.tables import read_kept_table
from wardround.common.metrics.detection import OVERLAPS, DetectionSums
from wardround.common.metrics.task_sums import no_counts
from wardround.common.statistics.interval import Interval

DETECTIONS = "detections.csv"
DETECTION_INTERVALS = "detection-intervals.csv"


@dataclass(frozen=True, slots=True)
class DetectionRow:
    """How many boxes of one class had a score of one bin, at one site.

    Attributes:
        class_name: Every class has at least one row.
        images: Test images of the site, with and without boxes.
        truths: Their true boxes of the class.
        bins: How many bins there are between 0 and 1.
        bin: Which one, from 0 on.
        found: Boxes with a score in it.
        hits: Those of them that are hits at IoU .50.
    """

    model: str
    site: str
    class_name: str
    images: int
    truths: int
    bins: int
    bin: int
    found: int
    hits: int


@dataclass(frozen=True, slots=True)
class DetectionIntervalRow:
    """A metric of one model's boxes at one site, the mean over classes; see :class:`Interval`."""

    model: str
    site: str
    metric: str
    value: float
    low: float
    high: float
    standard_error: float
    freedom: float
    patients: int


def read_detection_intervals(folder: Path) -> dict[tuple[str, str, str, str], Interval]:
    """Return the intervals by model, site, metric and "" for all classes.

    Raises:
        InputError: The file is damaged.
    """
    return {
        (row.model, row.site, row.metric, ""): Interval(
            row.value, row.low, row.high, row.standard_error, row.freedom, row.patients
        )
        for row in read_kept_table(folder / DETECTION_INTERVALS, DetectionIntervalRow)
    }


def detection_rows(
    model: str, site: str, images: int, sums: DetectionSums, classes: Sequence[str]
) -> Iterator[DetectionRow]:
    """Yield a row for each bin with a box, and one for a class without any."""
    bins = sums.found.shape[1]
    for index, name in enumerate(classes):
        truths = int(sums.truths[index])
        places = np.flatnonzero(sums.found[index]).tolist()
        for place in places or [0]:
            found, hits = int(sums.found[index, place]), int(sums.hits[0, index, place])
            yield DetectionRow(model, site, name, images, truths, bins, place, found, hits)


@dataclass(frozen=True, slots=True)
class FoundBoxes:
    """What one model found in the test images of one site.

    Attributes:
        images: How many.
        sums: Of them, at IoU .50 alone: the hits at higher ones are not kept here and 0.
    """

    images: int
    sums: DetectionSums


def read_detections(folder: Path, classes: Sequence[str]) -> Mapping[str, Mapping[str, FoundBoxes]]:
    """Return what each model found at each site; empty where the run left no such file.

    Raises:
        InputError: The file is damaged.
    """
    rows = read_kept_table(folder / DETECTIONS, DetectionRow)
    found: dict[str, dict[str, FoundBoxes]] = {}
    for row in rows:
        if row.class_name not in classes or not 0 <= row.bin < row.bins:
            continue
        sites = found.setdefault(row.model, {})
        if row.site not in sites:
            shape = (len(classes), row.bins)
            sums = DetectionSums(
                no_counts(*shape),
                no_counts(len(OVERLAPS), *shape),
                no_counts(len(classes)),
                no_counts(len(classes)),
            )
            sites[row.site] = FoundBoxes(row.images, sums)
        sums, index = sites[row.site].sums, classes.index(row.class_name)
        sums.truths[index] = row.truths
        sums.found[index, row.bin] = row.found
        sums.hits[0, index, row.bin] = row.hits
    return found
