"""Metrics out of noised sums, by the definitions that hold without noise.

Nothing here sees a patient: it starts from the vector that left a site, with its noise.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.classification import ClassificationSums
from wardround.common.metrics.detection import DetectionSums
from wardround.common.metrics.noised.encoding import (
    BOX_EDGES,
    LARGEST_LOSS,
    LOSS,
    SCORE_EDGES,
    NoisedSums,
    blocks_of,
    length_of,
)
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
from wardround.common.metrics.survival import EVENT, SurvivalSums
from wardround.common.metrics.task_sums import MetricValue, Sums, TaskSums, no_counts, refuse
from wardround.common.study.study import Study

LARGEST_SUM = 1e12  # of patients, or of noise; no site has so many
_BOX_UNITS = 1_000  # a box of an image that counts whole: counts of boxes are whole numbers
_HALF = SCORE_EDGES.index(0.5) + 1  # the first bin in which a label is predicted
_DRAWS = 50  # of noise, by which the error of a metric is known to a tenth of itself
_PATIENTS = "patients"


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
    lost, kept = nearest_counts(parts.pop(LOSS))
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
