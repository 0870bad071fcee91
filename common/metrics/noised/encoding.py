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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.detection import match, overlaps_of
from wardround.common.metrics.survival import at_horizon, time_rows
from wardround.common.metrics.task_sums import Sums
from wardround.common.study.study import Study

NORM_BOUND = 1.0  # of what one patient adds
LARGEST_LOSS = 3.0  # of an examination; chance alone has 0.7 with two classes, 2 with seven
# Edges between bins of a score. Few bins, for each has its noise; close where networks are sure.
SCORE_EDGES = (0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 0.99)
_BINS = len(SCORE_EDGES) + 1
# Of boxes that were found: many have low scores, and would fill the vector of an image.
BOX_EDGES = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85)
_NOISED_MOMENTS = 7  # of a regression
LOSS = "loss"  # the first block
# How the squares of the blocks' scales share 1.
_SHARES: dict[str, dict[str, float]] = {
    "scores": {LOSS: 0.1, "scores": 0.9},
    "table": {LOSS: 0.1, "scores": 0.3, "table": 0.6},
    "ranks": {LOSS: 0.1, "scores": 0.6, "table": 0.3},
    "dice": {LOSS: 0.1, "dice": 0.9},
    "boxes": {LOSS: 0.1, "boxes": 0.9},
    # Of numbers: they are divided by how many patients there are, and the loss counts these.
    "moments": {LOSS: 0.3, "moments": 0.7},
    "follow-up": {LOSS: 0.1, "follow-up": 0.9},
    "errors": {LOSS: 0.1, "errors": 0.9},
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
    shapes: dict[str, tuple[int, ...]] = {LOSS: (2,)}
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
