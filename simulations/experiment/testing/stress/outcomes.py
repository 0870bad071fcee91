"""What a model got right of each examination, and what follows with intervals over patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.client.tasks.detection import DECIDED
from wardround.client.training.case_predictions import ClassifiedCases, SegmentedCases
from wardround.common.metrics.detection import DetectionSums
from wardround.common.study.study import Study

Floats = NDArray[np.float64]
_DRAWS = 500
_ENDS = (2.5, 97.5)


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """N examinations; K parts whose means count the same: classes, or labels' two answers.

    Attributes:
        hits: ``(N, K)`` of what was to be found, how much was.
        counts: ``(N, K)`` how much was to be found; 0 where an examination has nothing of a part.
        patients: ``(N,)`` numbers of patients.
        scores: ``(N, C)`` of a classification; None of a segmentation.
        truth: ``(N, C)`` bool likewise.
    """

    hits: Floats
    counts: Floats
    patients: NDArray[np.int64]
    scores: Floats | None = None
    truth: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def classified_outcomes(found: ClassifiedCases, study: Study) -> Outcomes:
    """Return what was got right of a classification."""
    truth = found.truth
    if study.data.multi_label:
        said = found.scores >= 0.5
        counts = np.concatenate([truth, ~truth], axis=1).astype(np.float64)
        hits = np.concatenate([truth & said, ~truth & ~said], axis=1).astype(np.float64)
    else:
        said = found.scores.argmax(axis=1)[:, None] == np.arange(truth.shape[1])
        counts, hits = truth.astype(np.float64), (truth & said).astype(np.float64)
    return Outcomes(hits, counts, found.patients, found.scores, truth)


def segmented_outcomes(found: SegmentedCases) -> Outcomes:
    """Return the Dice of each foreground class of a segmentation."""
    dice = found.dice[:, 1:]
    return Outcomes(np.nan_to_num(dice), (~np.isnan(dice)).astype(np.float64), found.patients)


def detected_outcomes(found: Sequence[DetectionSums], patients: NDArray[np.int64]) -> Outcomes:
    """Return the F1 of the boxes that are said to be there: ``2 TP / (found + true boxes)``.

    Boxes count from the score ``DECIDED`` on, and are hits at IoU .50.

    Args:
        found: Of each examination.
        patients: ``(N,)``.
    """
    hits, counts = list[Floats](), list[Floats]()
    for one in found:
        first = round(DECIDED * one.found.shape[1])
        hits.append(2.0 * one.hits[0, :, first:].sum(axis=1))
        counts.append(one.found[:, first:].sum(axis=1) + one.truths.astype(np.float64))
    return Outcomes(np.stack(hits), np.stack(counts), patients)


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Return outcomes of one cohort that came in parts."""
    first = parts[0]
    scores = truth = None
    if first.scores is not None:
        scores = np.concatenate([part.scores for part in parts if part.scores is not None])
        truth = np.concatenate([part.truth for part in parts if part.truth is not None])
    return Outcomes(
        np.concatenate([part.hits for part in parts]),
        np.concatenate([part.counts for part in parts]),
        np.concatenate([part.patients for part in parts]),
        scores,
        truth,
    )


def of_all_sites(parts: Sequence[Outcomes]) -> Outcomes:
    """Return outcomes of several sites, whose patients are numbered each from 0."""
    firsts = np.cumsum([0, *(int(part.patients.max(initial=-1)) + 1 for part in parts)])
    numbered = [
        Outcomes(part.hits, part.counts, part.patients + first, part.scores, part.truth)
        for part, first in zip(parts, firsts, strict=False)
    ]
    return joined(numbered)


def success(outcomes: Outcomes, seed: int = 0) -> Interval:
    """Return the mean over parts of the share found: balanced accuracy, mean Dice, or F1.

    The interval is the patient bootstrap's: all images of a patient are drawn together.
    """
    hits, counts = (_by_patient(part, outcomes) for part in (outcomes.hits, outcomes.counts))
    patients = len(hits)
    if patients == 0 or not counts.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(patients, np.full(patients, 1 / patients), size=_DRAWS)
    drawn = _mean_share(weights @ hits, weights @ counts)
    low, high = np.nanpercentile(drawn, _ENDS)
    value = float(_mean_share(hits.sum(0)[None], counts.sum(0)[None])[0])
    return Interval(value, float(low), float(high))


def auroc(outcomes: Outcomes, exclusive: bool, seed: int = 0, draws: int = 200) -> Interval:
    """Return the mean AUROC of the classes (each against the rest), with a patient bootstrap.

    Args:
        outcomes: Of a classification.
        exclusive: Whether an examination has one class. Of two such classes the second counts, as
            both have the same AUROC.
        seed: Of the draws.
        draws: Of the bootstrap; 0 leaves the interval out.
    """
    nothing = float("nan")
    scores, truth = outcomes.scores, outcomes.truth
    if scores is None or truth is None or not len(scores):
        return Interval(nothing, nothing, nothing)
    chosen = [1] if exclusive and truth.shape[1] == 2 else list(range(truth.shape[1]))
    ones = np.ones(len(scores))
    orders = [np.unique(scores[:, k], return_inverse=True)[1] for k in chosen]

    def mean(weights: Floats) -> float:
        pairs = zip(orders, chosen, strict=True)
        values = np.array([_weighted_auroc(order, truth[:, k], weights) for order, k in pairs])
        return float(np.nanmean(values)) if not np.isnan(values).all() else nothing

    value = mean(ones)
    if not draws or np.isnan(value):
        return Interval(value, nothing, nothing)
    _, patients = np.unique(outcomes.patients, return_inverse=True)
    count, generator = int(patients.max()) + 1, np.random.default_rng(seed)
    shares = np.full(count, 1 / count)
    found = [
        mean(generator.multinomial(count, shares)[patients].astype(float)) for _ in range(draws)
    ]
    low, high = np.nanpercentile(found, _ENDS)
    return Interval(value, float(low), float(high))


def _weighted_auroc(
    order: NDArray[np.int64], positive: NDArray[np.bool_], weights: Floats
) -> float:
    """Return the Mann-Whitney U over the pairs, ties one half, each examination with a weight."""
    size = int(order.max()) + 1
    yes = np.bincount(order[positive], weights[positive], size)
    no = np.bincount(order[~positive], weights[~positive], size)
    pairs = yes.sum() * no.sum()
    if pairs == 0:
        return float("nan")
    below = np.concatenate([[0.0], np.cumsum(no)[:-1]])
    return float((yes * (below + no / 2)).sum() / pairs)


def _by_patient(values: Floats, outcomes: Outcomes) -> Floats:
    names, place = np.unique(outcomes.patients, return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, place, values)
    return sums


def _mean_share(hits: Floats, counts: Floats) -> Floats:
    """Return ``(D,)`` means over the parts that are there, NaN where none is."""
    present = counts > 0
    shares = np.where(present, hits / np.where(present, counts, 1), 0.0)
    parts = present.sum(axis=1)
    return np.where(parts > 0, shares.sum(axis=1) / np.maximum(parts, 1), np.nan)
