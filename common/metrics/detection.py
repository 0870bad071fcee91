"""How a detection is measured: histograms of scores that add up, and mAP and FROC from them.

A box that was found is a hit where it lies on a true box of its class well enough, and a false
positive otherwise. Precision and sensitivity at every score follow from how many hits and false
positives have at least this score. So do average precision and the FROC curve, and sites add up.
Within one bin of the score the order is not known: the value is that of an even mixture, and its
error bound that of the best and the worst order.

A box is a row of numbers: (score), class, lo of each axis, hi of each axis; hi is exclusive.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.task_sums import (
    Arrays,
    Counts,
    MetricValue,
    Sums,
    TaskSums,
    added,
    counts_of,
    mean_over,
    no_counts,
    per_class,
    refuse,
)
from wardround.common.study.study import Study

Boxes = NDArray[np.floating]

# IoU that a hit must have: .50, .55, ... .95, as COCO (Lin et al. 2014).
OVERLAPS: tuple[float, ...] = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
MOST_FOUND = 100  # boxes of a class in an image that count, those of the highest scores; as COCO
# False positives an image at which FROC reads the sensitivity: LUNA16 (Setio et al. 2017).
FROC_RATES: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_RECALLS = 101  # recalls 0, .01, ... 1 at which COCO reads the precision


@dataclass(frozen=True, slots=True, eq=False)
class DetectionSums:
    """Counts over the examinations of a detection with K classes.

    Attributes:
        found: ``(K, bins)`` histogram over [0, 1] of the scores of the boxes that were found.
        hits: ``(10, K, bins)`` those of them that are hits at each IoU of ``OVERLAPS``; the others
            are false positives. ``(1, K, bins)`` where only those at IoU .50 are known: then only
            map50 is.
        truths: ``(K,)`` true boxes.
        images: ``(K,)`` examinations that hold a true box of the class.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()

    found: Counts
    hits: Counts
    truths: Counts
    images: Counts

    @classmethod
    def empty(cls, study: Study, surfaces: bool) -> "DetectionSums":
        """Return the counts over no examination; boxes have no surfaces."""
        classes, bins = study.class_count, study.evaluation.score_bins
        return cls(
            no_counts(classes, bins),
            no_counts(len(OVERLAPS), classes, bins),
            no_counts(classes),
            no_counts(classes),
        )

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], examinations: int
    ) -> "DetectionSums":
        """Return the counts that came as arrays, after checking that boxes can give them.

        Raises:
            InputError: They cannot.
        """
        sums = cls(*(counts_of(arrays, field.name) for field in fields(cls)))
        sums._check(examinations)
        return sums

    def _check(self, examinations: int) -> None:
        if (self.images > examinations).any():
            refuse("images", f"counts more than the {examinations} examinations")
        if (self.images > self.truths).any() or (self.truths[self.images == 0] > 0).any():
            refuse("truths", "does not fit the images that hold them")
        if (self.found.sum(axis=-1) > MOST_FOUND * examinations).any():
            refuse("found", f"counts more than {MOST_FOUND} boxes of a class an examination")
        if (self.hits > self.found).any():
            refuse("hits", "counts more hits than boxes were found")
        from_above = self.hits[..., ::-1].cumsum(axis=-1)
        most = np.minimum(self.truths, MOST_FOUND * self.images)
        if (from_above[..., -1] > most).any():
            refuse("hits", "counts more hits than there are true boxes")
        # Matching is greedy: the boxes above a score hit no more where a hit must be closer.
        if (np.diff(from_above, axis=0) > 0).any():
            refuse("hits", "counts more hits at a higher overlap")

    def to_arrays(self) -> Arrays:
        """Return the counts by name: int64, and the histograms, most of the bytes, int32."""
        return {
            "found": self.found.astype(np.int32),
            "hits": self.hits.astype(np.int32),
            "truths": self.truths,
            "images": self.images,
        }

    def plus(self, other: TaskSums, examinations: tuple[int, int]) -> "DetectionSums":
        """Return the counts over the examinations of both.

        Raises:
            InputError: They were measured for different studies.
        """
        return added(self, other)

    def summarise(self, metric: str, examinations: int, study: Study) -> Iterator[MetricValue]:
        """Yield a metric as the mean over the classes that occur, and then a class.

        Definitions, of one class:

        - map50: average precision at IoU .50: the mean over the recalls 0, .01, ... 1 of the best
          precision at this recall or a higher one.
        - map: the mean of the average precision over the IoU of ``OVERLAPS``.
        - froc: the mean sensitivity at 1/8, 1/4, 1/2, 1, 2, 4 and 8 false positives an image, with
          hits at IoU .50.
        """
        if metric != "map50" and len(self.hits) < len(OVERLAPS):
            return
        each = [self._value(metric, index, examinations) for index in range(len(self.truths))]
        values, bounds = np.array(each).reshape(-1, 2).T
        defined = ~np.isnan(values)
        overall = mean_over(metric, values, examinations)
        bound = float(bounds[defined].mean()) if defined.any() else 0.0
        yield MetricValue(metric, "", overall.value, overall.support, bound)
        yield from per_class(metric, study.data.classes, values, self.images, bounds)

    def _value(self, metric: str, index: int, examinations: int) -> tuple[float, float]:
        """Return a metric of one class and how far off it can be."""
        if not self.truths[index]:
            return math.nan, 0.0
        if metric == "froc":
            return _froc(self, index, examinations)
        overlaps = range(1 if metric == "map50" else len(OVERLAPS))
        values = [
            average_precision(self.hits[at, index], self.found[index], int(self.truths[index]))
            for at in overlaps
        ]
        value, bound = np.mean(values, axis=0)
        return float(value), float(bound)

    def cells_behind(self, metric: str) -> Counts:
        """Return ``(K,)`` examinations that hold a box of each class."""
        return self.images


def count_image(found: Boxes, truth: Boxes, sums: DetectionSums) -> None:
    """Add one image to the sums, in place.

    The boxes that were found are taken by falling score. Each takes the true box of its class that
    it overlaps most, of those not taken yet, if they overlap enough: the matching of COCO's
    evaluation, at each IoU of ``OVERLAPS`` anew.

    Args:
        found: ``(P, 2 + 2 dims)``: score in [0, 1], class, lo of each axis, hi of each axis. Rows
            of class -1 are padding.
        truth: ``(M, 1 + 2 dims)``: the same without a score.
        sums: Of the study; a class that it does not have counts for nothing.
    """
    found, truth = found.astype(np.float64), truth.astype(np.float64)
    bins = sums.found.shape[1]
    for index in range(len(sums.truths)):
        boxes = found[found[:, 1] == index]
        boxes = boxes[np.argsort(-boxes[:, 0], kind="stable")[:MOST_FOUND]]
        true_boxes = truth[truth[:, 0] == index, 1:]
        sums.truths[index] += len(true_boxes)
        sums.images[index] += len(true_boxes) > 0
        place = np.clip((boxes[:, 0] * bins).astype(np.int64), 0, bins - 1)
        np.add.at(sums.found[index], place, 1)
        for at, hit in enumerate(match(overlaps_of(boxes[:, 2:], true_boxes))):
            np.add.at(sums.hits[at, index], place[hit], 1)


def overlaps_of(a: Boxes, b: Boxes) -> Sums:
    """Return ``(P, M)``: intersection over union of boxes ``(P, 2 dims)`` and ``(M, 2 dims)``.

    A box without volume overlaps nothing.
    """
    dims = a.shape[1] // 2
    low = np.maximum(a[:, None, :dims], b[None, :, :dims])
    high = np.minimum(a[:, None, dims:], b[None, :, dims:])
    common = np.maximum(high - low, 0).prod(axis=-1)
    sizes = [np.maximum(boxes[:, dims:] - boxes[:, :dims], 0).prod(axis=-1) for boxes in (a, b)]
    union = sizes[0][:, None] + sizes[1][None] - common
    result: Sums = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return result


def match(overlaps: Sums) -> NDArray[np.bool_]:
    """Return ``(10, P)``: which of P boxes are hits at each IoU of ``OVERLAPS``.

    Args:
        overlaps: ``(P, M)`` IoU with the true boxes, the boxes by falling score.
    """
    number, truths = overlaps.shape
    hits = np.zeros((len(OVERLAPS), number), dtype=np.bool_)
    taken = np.zeros((len(OVERLAPS), truths), dtype=np.bool_)
    least = np.array(OVERLAPS)
    close = overlaps.max(axis=1, initial=0.0) >= least[0]
    for row in np.flatnonzero(close):
        free = np.where(taken, -1.0, overlaps[row])
        best = truths - 1 - free[:, ::-1].argmax(axis=1)  # the last of equals, as COCO takes it
        hit = np.take_along_axis(free, best[:, None], axis=1)[:, 0] >= least
        hits[:, row] = hit
        taken[np.flatnonzero(hit), best[hit]] = True
    return hits


def average_precision(hits: Counts, found: Counts, truths: int) -> tuple[float, float]:
    """Return COCO's average precision at one IoU, and how far off it can be.

    Args:
        hits: ``(bins,)`` histogram of the scores of the hits.
        found: ``(bins,)`` that of all boxes that were found.
        truths: How many true boxes there are, at least 1.
    """
    # Hits of a bin come after this share of its false positives: none, all, or evenly mixed.
    even, best, worst = (_precision_over_recalls(hits, found, truths, mix) for mix in _MIXES)
    return even, max(best - even, even - worst)


# From how many hits of a bin were seen, and how many it has, to the share of its false positives.
_Mix = Callable[[Sums, Sums], Sums]
_MIXES: tuple[_Mix, ...] = (
    lambda seen, of: seen / (of + 1),
    lambda seen, of: np.zeros_like(seen),
    lambda seen, of: np.ones_like(seen),
)


def _precision_over_recalls(hits: Counts, found: Counts, truths: int, mix: _Mix) -> float:
    held = hits[::-1] > 0  # a bin without a hit never has the best precision
    false = (found - hits)[::-1]
    before_false = (false.cumsum() - false)[held].astype(float)
    of, false = hits[::-1][held].astype(float), false[held].astype(float)
    before = of.cumsum() - of

    def precision(bins: NDArray[np.integer] | slice, seen: Sums) -> Sums:
        right = before[bins] + seen
        return np.asarray(right / (right + before_false[bins] + false[bins] * mix(seen, of[bins])))

    recalls = np.linspace(0, 1, _RECALLS)
    ranks = np.maximum(1.0, np.ceil(recalls * truths - 1e-9))
    ranks += ranks / truths < recalls  # by rounding, as COCO compares them
    ranks = ranks[ranks <= of.sum()]
    if not len(ranks):
        return 0.0
    bins = np.searchsorted(of.cumsum(), ranks)
    # Within a bin the precision only rises or only falls, so the best is at one of its ends.
    last = precision(slice(None), of)
    ends = np.maximum(precision(slice(None), np.ones_like(of)), last)
    later = np.append(np.maximum.accumulate(ends[::-1])[::-1], 0.0)
    here = np.maximum(precision(bins, ranks - before[bins]), last[bins])
    return float(np.maximum(here, later[bins + 1]).sum() / _RECALLS)


@dataclass(frozen=True, slots=True, eq=False)
class FrocCurve:
    """How much of a class is found at how many false positives; the score falls along the curve.

    Attributes:
        false_positives: ``(N,)`` an image, from 0 on, rising.
        sensitivity: ``(N,)`` share of the true boxes that are found, rising.
    """

    false_positives: Sums
    sensitivity: Sums


def froc_curve(sums: DetectionSums, index: int, examinations: int) -> FrocCurve | None:
    """Return the FROC curve of a class at IoU .50, a point a bin; None where there is no true box.

    Args:
        sums: Of one site or merged over several.
        index: Of the class.
        examinations: How many images are behind the sums, with and without boxes; at least 1.
    """
    truths = int(sums.truths[index])
    if not truths:
        return None
    hits, false = sums.hits[0, index], sums.found[index] - sums.hits[0, index]
    places = np.flatnonzero(sums.found[index])[::-1]
    rates = np.append(0.0, false[places].cumsum() / examinations)
    return FrocCurve(rates, np.append(0.0, hits[places].cumsum() / truths))


def sensitivity_at(curve: FrocCurve, rate: float) -> tuple[float, float]:
    """Return the sensitivity at so many false positives an image, and how far off it can be.

    Between two points of the curve it rises evenly; after the last it stays.
    """
    rates, found = curve.false_positives, curve.sensitivity
    after = int(np.searchsorted(rates, rate, side="right"))
    low = float(found[after - 1])
    if after == len(rates):
        return low, 0.0
    high = float(found[after])
    part = (rate - rates[after - 1]) / (rates[after] - rates[after - 1])
    value = low + float(part) * (high - low)
    return value, max(high - value, value - low)


def _froc(sums: DetectionSums, index: int, examinations: int) -> tuple[float, float]:
    curve = froc_curve(sums, index, examinations)
    if curve is None:
        return math.nan, 0.0
    value, bound = np.mean([sensitivity_at(curve, rate) for rate in FROC_RATES], axis=0)
    return float(value), float(bound)
