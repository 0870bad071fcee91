"""A measurement with noise: one bounded vector a patient, summed, noised, and made into metrics.

A site with privacy for patients sends no tables. It gives each examination a vector of norm at most
1, each patient the mean of its examinations', adds the patients up, and adds normal noise to each
number. One patient more or less moves the sum by at most 1, whatever the model. All that follows
is done with the noised sum: negative counts are taken away, sums of several sites are added, and
metrics are computed by the definitions that hold without noise.

A vector is made of blocks, each of norm at most 1 and then scaled, so that the whole is too:

- loss: what the loss, cut to [0, LARGEST_LOSS] and divided by that, has and lacks of 1; together
  the two count the patients, at a norm that is no larger than counting them.
- classification: for each score the bin it falls into, of the examinations that are of the class
  and of the others. Two classes have one score, K classes (and K labels) have K. More than two
  classes that exclude each other have a table of true by predicted class beside it.
- segmentation: for each foreground class that the mask holds its Dice, and what that lacks of 1.
- detection: for each class how many true boxes there are, and how many were found by score, hits
  apart from false positives; all of an image divided by their norm, where that is above 1. So an
  image counts once however many boxes it holds, and precision and recall are those of images that
  weigh alike.
- regression: truth, estimate and distance as shares of the outcome's range, their squares, and the
  product of the two. Truth and estimate are taken from the middle of the range, which makes them
  small.
- survival: by event or none, interval of the study and bin of the risk, where the examination is.
- pretraining: the share of the hidden parts that is not restored, and what that lacks of 1.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.classification import ClassificationSums
from wardround.common.metrics.detection import DetectionSums, match, overlaps_of
from wardround.common.metrics.pretraining import PretrainingSums
from wardround.common.metrics.regression import (
    DISTANCE,
    ESTIMATE,
    ESTIMATE_SQUARE,
    FOURTH,
    MOMENTS,
    PRODUCT,
    SQUARE,
    TRUTH,
    TRUTH_SQUARE,
    RegressionSums,
)
from wardround.common.metrics.segmentation import SegmentationSums
from wardround.common.metrics.sums import MetricSums, summarise
from wardround.common.metrics.survival import EVENT, SurvivalSums, at_horizon, time_rows
from wardround.common.metrics.task_sums import MetricValue, Sums, TaskSums, no_counts, refuse
from wardround.common.study.study import Study

NORM_BOUND = 1.0  # of what one patient adds
LARGEST_LOSS = 3.0  # of an examination; chance alone has 0.7 with two classes, 2 with seven
# Edges between bins of a score. Few bins, for each has its noise; close where networks are sure.
SCORE_EDGES = (0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99)
_BINS = len(SCORE_EDGES) + 1
# Of boxes that were found: many have low scores, and would fill the vector of an image.
BOX_EDGES = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85)
_BOX_UNITS = 1_000  # a box of an image that counts whole: counts of boxes are whole numbers
_HALF = SCORE_EDGES.index(0.5) + 1  # the first bin in which a label is predicted
LARGEST_SUM = 1e12  # of patients, or of noise; no site has so many
_NOISED_MOMENTS = 7  # of a regression
_DRAWS = 50  # of noise, by which the error of a metric is known to a tenth of itself
_LOSS, _PATIENTS = "loss", "patients"
# How the squares of the blocks' scales share 1.
_SHARES: dict[str, dict[str, float]] = {
    "scores": {_LOSS: 0.1, "scores": 0.9},
    "table": {_LOSS: 0.1, "scores": 0.3, "table": 0.6},
    "ranks": {_LOSS: 0.1, "scores": 0.6, "table": 0.3},
    "dice": {_LOSS: 0.1, "dice": 0.9},
    "boxes": {_LOSS: 0.1, "boxes": 0.9},
    # Of numbers: they are divided by how many patients there are, and the loss counts these.
    "moments": {_LOSS: 0.3, "moments": 0.7},
    "follow-up": {_LOSS: 0.1, "follow-up": 0.9},
    "errors": {_LOSS: 0.1, "errors": 0.9},
}
# Of a regression: distance and its square at 1, truth and estimate half the range off its middle,
# each to one side.
_LARGEST_MOMENTS = 1 + 1 + 2 * 0.5**2 + 3 * 0.25**2

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class NoisedSums:
    """What one or several sites measured, as it left them.

    Attributes:
        vector: ``(D,)`` float64, the blocks of :func:`blocks_of` one after the other.
        deviation: Standard deviation of the noise on each number; 0 where it is not known.
    """

    vector: Sums
    deviation: float = 0.0


@dataclass(frozen=True, slots=True)
class Block:
    """One part of a vector.

    Attributes:
        shape: Of its numbers.
        scale: What an examination's numbers are multiplied by before they are summed.
    """

    name: str
    shape: tuple[int, ...]
    scale: float

    @property
    def length(self) -> int:
        """Numbers of the block."""
        return math.prod(self.shape)


def blocks_of(study: Study) -> tuple[Block, ...]:
    """Return the blocks of a study's vector, in order."""
    return _blocks(
        study.study.task,
        study.class_count,
        study.data.multi_label,
        study.metric == "auroc",
        len(study.data.outcome.times) if study.data.outcome else 0,
    )


def length_of(study: Study) -> int:
    """Return D, the numbers of a study's vector."""
    return sum(block.length for block in blocks_of(study))


@lru_cache(maxsize=64)
def _blocks(task: str, classes: int, labels: bool, ranked: bool, times: int) -> tuple[Block, ...]:
    shapes: dict[str, tuple[int, ...]] = {_LOSS: (2,)}
    rows, kind = 1, "dice"  # rows of a block in which an examination has its one
    if task == "segmentation":
        rows = classes - 1
        shapes["dice"] = (rows, 2)
    elif task == "detection":
        shapes["boxes"], kind = (classes, 1 + 2 * len(BOX_EDGES)), "boxes"
    elif task == "regression":
        shapes["moments"], kind = (_NOISED_MOMENTS,), "moments"
    elif task == "survival":
        shapes["follow-up"], kind = (2, times + 1, _BINS), "follow-up"
    elif task == "pretraining":
        shapes["errors"], kind = (2,), "errors"
    else:
        rows = 1 if classes == 2 and not labels else classes
        shapes["scores"], kind = (rows, 2, _BINS), "scores"
        if rows > 1 and not labels:
            shapes["table"], kind = (classes, classes), "ranks" if ranked else "table"
    shares = _SHARES[kind]
    ones = {"dice": rows, "scores": rows, "moments": _LARGEST_MOMENTS}
    return tuple(
        Block(name, shape, math.sqrt(shares[name] / ones.get(name, 1)))
        for name, shape in shapes.items()
    )


# --- At a site: an examination's vector.


def encode_loss(losses: Sums) -> Sums:
    """Return ``(N, 2)`` from N losses; one that is no number counts as the largest."""
    cut = np.clip(np.nan_to_num(losses, nan=LARGEST_LOSS), 0.0, LARGEST_LOSS) / LARGEST_LOSS
    return np.stack([cut, 1 - cut], axis=1)


def encode_scores(scores: Sums, truth: Flags, study: Study) -> Sums:
    """Return what N examinations add to the blocks of a classification, ``(N, D - 2)``.

    Args:
        scores: ``(N, K)`` in [0, 1]; an examination with a NaN among them counts as nobody.
        truth: ``(N, K)``: of which classes it is.
    """
    blocks = blocks_of(study)[1:]
    usable: Flags = np.asarray(np.isfinite(scores).all(axis=1))
    scores = np.where(usable[:, None], scores, 0.0)
    parts = []
    for block in blocks:
        numbers = np.zeros((len(scores), *block.shape))
        rows = np.arange(len(scores))
        if block.name == "table":
            numbers[rows, truth.argmax(axis=1), scores.argmax(axis=1)] = 1
        else:
            # Of two classes the last score says it all.
            for place, column in enumerate(range(len(truth[0]) - len(numbers[0]), len(truth[0]))):
                bins = np.digitize(scores[:, column], SCORE_EDGES)
                numbers[rows, place, (~truth[:, column]).astype(int), bins] = 1
        parts.append(numbers.reshape(len(scores), -1))
    return np.concatenate(parts, axis=1) * usable[:, None]


def encode_dice(dice: Sums, present: Flags) -> Sums:
    """Return what N cases add to the block of a segmentation, ``(N, 2 (K - 1))``.

    Args:
        dice: ``(N, K - 1)`` of the foreground classes, in [0, 1].
        present: ``(N, K - 1)``: whether the mask holds the class.
    """
    cut = np.clip(np.nan_to_num(dice), 0.0, 1.0)
    pairs = np.stack([cut, 1 - cut], axis=2) * present[:, :, None]
    return pairs.reshape(len(dice), -1)


def encode_boxes(found: Sequence[Sums], truth: Sequence[Sums], study: Study) -> Sums:
    """Return what N images add to the block of a detection, ``(N, K (1 + 2 bins))``.

    Args:
        found: Of each image ``(P, 2 + 2 dims)``, as :mod:`wardround.common.metrics.detection` has
            them.
        truth: Of each image ``(M, 1 + 2 dims)``.
        study: Says the classes.
    """
    bins = len(BOX_EDGES)
    numbers = np.zeros((len(found), study.class_count, 1 + 2 * bins))
    for image, (boxes, true) in enumerate(zip(found, truth, strict=True)):
        for index in range(study.class_count):
            mine = boxes[(boxes[:, 1] == index) & (boxes[:, 0] >= BOX_EDGES[0])]
            mine = mine[np.argsort(-mine[:, 0], kind="stable")]
            held = true[true[:, 0] == index, 1:]
            hits = match(overlaps_of(mine[:, 2:], held))[0]
            places = np.digitize(mine[:, 0], BOX_EDGES)
            numbers[image, index, 0] = len(held)
            np.add.at(numbers[image, index], np.where(hits, places, places + bins), 1)
    flat = numbers.reshape(len(numbers), -1)
    one_each: Sums = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), NORM_BOUND)
    return one_each


def encode_estimates(truth: Sums, estimates: Sums) -> Sums:
    """Return what N examinations add to the block of a regression, ``(N, 7)``.

    Args:
        truth: ``(N,)`` in [0, 1], from the low to the high end of the range.
        estimates: ``(N,)``, cut to [0, 1] here; one that is no number counts as nobody.
    """
    usable = np.isfinite(estimates)
    y, p = np.clip(truth, 0.0, 1.0) - 0.5, np.clip(np.nan_to_num(estimates), 0.0, 1.0) - 0.5
    e = np.abs(p - y)
    moments: Sums = np.stack([e, e**2, y, y**2, p, p**2, p * y], axis=1)
    return moments * usable[:, None]


def encode_follow_up(times: Sums, events: Flags, risks: Sums, study: Study) -> Sums:
    """Return what N examinations add to the block of a survival task.

    Args:
        times: ``(N,)`` at least 0.
        events: ``(N,)`` whether each is the time of an event.
        risks: ``(N,)`` in [0, 1]; one that is no number counts as nobody.
        study: Says the intervals.
    """
    edges = np.array(study.outcome.times)
    usable = np.isfinite(risks)
    times, events = at_horizon(times, events, float(edges[-1]))
    numbers = np.zeros((len(times), 2, len(edges) + 1, _BINS))
    bins = np.digitize(np.nan_to_num(risks), SCORE_EDGES)
    rows = time_rows(times, events, edges)
    numbers[np.arange(len(times)), events.astype(int), rows, bins] = 1
    return numbers.reshape(len(times), -1) * usable[:, None]


def encode_errors(errors: Sums) -> Sums:
    """Return ``(N, 2)`` from N shares in [0, 1]; one that is no number counts as 1."""
    cut = np.clip(np.nan_to_num(errors, nan=1.0), 0.0, 1.0)
    return np.stack([cut, 1 - cut], axis=1)


def scaled(numbers: Sums, study: Study) -> Sums:
    """Return ``(N, D)`` vectors of norm at most 1, from the blocks' numbers side by side.

    The norm is looked at: a vector that is longer, by rounding or by a defect, is shortened.
    """
    scales = np.concatenate([np.full(block.length, block.scale) for block in blocks_of(study)])
    vectors = np.nan_to_num(numbers, nan=0.0, posinf=0.0, neginf=0.0) * scales
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Sums = vectors / np.maximum(norms, NORM_BOUND)
    return found


# --- At the server: metrics.


def checked_vector(vector: NDArray[np.generic], study: Study) -> Sums:
    """Return a vector that came in a message.

    Raises:
        InputError: It is not one of this study: of another shape or type, or not finite.
    """
    if vector.shape != (length_of(study),) or vector.dtype != np.float64:
        refuse("noised", f"has shape {vector.shape!s:.60} and type {vector.dtype}")
    numbers = vector.astype(np.float64)
    if not (np.abs(numbers) <= LARGEST_SUM).all():  # False for NaN
        refuse("noised", f"holds a number that is not finite, or above {LARGEST_SUM:g}")
    return numbers


def merge_noised(parts: Sequence[NoisedSums]) -> NoisedSums:
    """Return the sums over the patients of all parts, with the noise of all."""
    vector = np.sum([part.vector for part in parts], axis=0)
    return NoisedSums(vector, math.sqrt(sum(part.deviation**2 for part in parts)))


def summarise_noised(sums: NoisedSums, study: Study) -> tuple[MetricValue, ...]:
    """Return every metric of the study's task but those of surfaces, as :func:`summarise` does.

    The standard error of a value is that of the noise alone, found by drawing the same noise
    again; chance in who the patients are comes on top of it.
    """
    values = _summarised(sums.vector, study)
    if not sums.deviation:
        return tuple(values)
    random = np.random.default_rng(0)  # no secret: it only measures
    draws = [
        [
            value.value
            for value in _summarised(
                sums.vector + sums.deviation * random.standard_normal(len(sums.vector)), study
            )
        ]
        for _ in range(_DRAWS)
    ]
    errors = _deviations(np.array(draws))
    return tuple(
        replace(value, standard_error=error) for value, error in zip(values, errors, strict=True)
    )


def _deviations(draws: Sums) -> list[float]:
    """Return the deviation of each column over the rows in which it is defined, 0 if in few."""
    columns = (column[~np.isnan(column)] for column in draws.T)
    return [float(column.std(ddof=1)) if len(column) > 1 else 0.0 for column in columns]


def _summarised(vector: Sums, study: Study) -> list[MetricValue]:
    parts = dict(_parts(vector, study))
    lost, kept = nearest_counts(parts.pop(_LOSS))
    patients = lost + kept
    parts[_PATIENTS] = np.asarray(patients)
    measured = _DECODERS[study.study.task](parts, study)
    # The loss is that of all patients; where noise leaves nobody it is not defined.
    sums = MetricSums(round(patients), lost * LARGEST_LOSS, measured)
    values = summarise(sums, study)
    mean = float(lost * LARGEST_LOSS / patients) if patients > 0 else math.nan
    return [replace(v, value=mean) if v.metric == "loss" else v for v in values]


def _parts(vector: Sums, study: Study) -> Iterator[tuple[str, Sums]]:
    """Yield each block by name, in the unit of patients."""
    start = 0
    for block in blocks_of(study):
        numbers = vector[start : start + block.length] / block.scale
        yield block.name, numbers.reshape(block.shape)
        start += block.length


def nearest_counts(noised: Sums) -> Sums:
    """Return the counts that are nearest to noised ones, none negative and with the same sum.

    Cutting each at 0 would add half of the noise wherever nobody is. This takes as much from all
    that stay (the projection onto a simplex, Hay et al. 2010); where the sum is not positive there
    is nobody.

    Args:
        noised: ``(..., n)``: each last axis is one such set of counts.
    """
    flat = noised.reshape(-1, noised.shape[-1])
    return np.stack([_projected(row) for row in flat]).reshape(noised.shape)


def _projected(row: Sums) -> Sums:
    total = row.sum()
    if total <= 0:
        return np.zeros_like(row)
    falling = np.sort(row)[::-1]
    excess = (falling.cumsum() - total) / np.arange(1, len(row) + 1)
    last = np.flatnonzero(falling > excess)[-1]
    found: Sums = np.maximum(row - excess[last], 0.0)
    return found


def _decode_classification(parts: dict[str, Sums], study: Study) -> TaskSums:
    scores = nearest_counts(parts["scores"])
    positives, negatives = scores[:, 0], scores[:, 1]
    if "table" in parts:
        confusion = nearest_counts(parts["table"])
    else:
        # ``(K, 2, 2)``, true by predicted, absent first.
        halves = np.stack([scores[..., :_HALF].sum(-1), scores[..., _HALF:].sum(-1)], axis=-1)
        confusion = halves[:, ::-1]
        if not study.data.multi_label:  # two classes with one score
            confusion = confusion[0]
            positives = np.concatenate([negatives[:, ::-1], positives])
            negatives = np.concatenate([positives[1:, ::-1], negatives])
    # Counts with noise are not whole.
    tables = (confusion, positives, negatives)
    return ClassificationSums(*tables, ordered_pairs=None)  # type: ignore[arg-type] # not whole


def _decode_segmentation(parts: dict[str, Sums], study: Study) -> TaskSums:
    pairs = np.concatenate(
        [np.zeros((1, 2)), nearest_counts(parts["dice"])]
    )  # the background has none
    none = no_counts(study.class_count)
    return SegmentationSums(
        pairs[:, 0], pairs.sum(axis=1), none, none, none, np.zeros(3), surface=None
    )


def _decode_detection(parts: dict[str, Sums], study: Study) -> TaskSums:
    """Return counts of boxes in small units; only hits at IoU .50 are known."""
    bins = len(BOX_EDGES)
    truths = parts["boxes"][:, 0].clip(min=0)
    hits, false = nearest_counts(parts["boxes"][:, 1:]).reshape(-1, 2, bins).swapaxes(0, 1)
    # Noise may leave more hits than there are boxes to hit.
    most = np.minimum(1.0, truths / np.maximum(hits.sum(axis=1), 1e-12))[:, None]
    whole = [np.rint(n * _BOX_UNITS).astype(np.int64) for n in (hits * most, false, truths)]
    found, images = whole[0] + whole[1], np.rint(truths).astype(np.int64)
    return DetectionSums(found, whole[0][None], whole[2], images)


def _decode_regression(parts: dict[str, Sums], study: Study) -> TaskSums:
    """Return moments from the low end of the range, and no bins: each would have its noise."""
    distance, square, y, y_square, p, p_square, product = parts["moments"]
    count = float(parts[_PATIENTS])
    moments = np.zeros(MOMENTS)
    moments[DISTANCE], moments[SQUARE] = max(distance, 0.0), max(square, 0.0)
    moments[FOURTH] = 0.0
    moments[TRUTH], moments[ESTIMATE] = y + count / 2, p + count / 2
    moments[TRUTH_SQUARE] = y_square + y + count / 4
    moments[ESTIMATE_SQUARE] = p_square + p + count / 4
    moments[PRODUCT] = product + (y + p) / 2 + count / 4
    return replace(RegressionSums.empty(study, surfaces=False), moments=moments)


def _decode_survival(parts: dict[str, Sums], study: Study) -> TaskSums:
    """Return a coarse table, in which no event is beyond the horizon; no pair is known exactly."""
    noised = parts["follow-up"]
    table = nearest_counts(noised.reshape(-1)).reshape(noised.shape)
    table[EVENT, -1] = 0.0
    empty = SurvivalSums.empty(study, surfaces=False)
    return replace(empty, table=table)  # type: ignore[arg-type] # not whole


def _decode_pretraining(parts: dict[str, Sums], study: Study) -> TaskSums:
    errors = nearest_counts(parts["errors"])
    return PretrainingSums(errors[:1], np.zeros(1), errors.sum(keepdims=True))


_DECODERS: dict[str, Callable[[dict[str, Sums], Study], TaskSums]] = {
    "classification": _decode_classification,
    "detection": _decode_detection,
    "segmentation": _decode_segmentation,
    "regression": _decode_regression,
    "survival": _decode_survival,
    "pretraining": _decode_pretraining,
}
NOISED_TASKS = tuple(_DECODERS)
