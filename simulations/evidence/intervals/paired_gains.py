"""How much better one model is than another on the same patients of one site."""

import math
from collections.abc import Iterator

import numpy as np

from wardround.common.statistics.case_metrics import (
    OF_ANSWERS,
    answer_columns,
    answer_ratios,
    answers_of_scores,
    case_columns,
    case_ratios,
)
from wardround.common.statistics.clustered import Floats, of_patients
from wardround.common.statistics.clustered_auroc import (
    PlacementSums,
    auroc_difference,
    auroc_swap_differences,
    paired_weights,
    placement_sums_of_scores,
)
from wardround.common.statistics.interval import Interval, t_interval
from wardround.common.statistics.paired import ratio_difference, swap_differences, with_swaps
from wardround.simulations.evidence.intervals.run_intervals import OF_CASES, Labels, mask_values
from wardround.simulations.run_files.predictions import Masks, Scores

_MOST_SWAPPED = 150  # patients whose scores are swapped; with more the formula is exact enough
_MOST_PAIRS = 4_000_000  # of a positive and a negative image, held in memory


def score_gains(first: Scores, second: Scores, labels: Labels) -> Iterator[tuple[str, Interval]]:
    """Yield metric and gain of the first classifier over the second, both of the same cases.

    Accuracy, balanced accuracy, F1 and AUROC over all classes; a gain is positive where the first
    is better. A metric that is not defined is absent.
    """
    columns = [
        of_patients(
            answer_columns(
                answers_of_scores(one.scores, labels.multi_label), one.labels, labels.multi_label
            ),
            one.patients,
        )
        for one in (first, second)
    ]
    yield from answer_gains(columns[0], columns[1], labels.multi_label)
    area = _auroc_gain(first, second, labels)
    if area is not None:
        yield "auroc", area


def answer_gains(
    first: Floats, second: Floats, multi_label: bool
) -> Iterator[tuple[str, Interval]]:
    """Yield accuracy, balanced accuracy and F1 with the gain in it, where it is defined.

    Args:
        first: ``(P, 3C)`` numbers of P patients, as :func:`answer_columns` makes them.
        second: The same patients'.
        multi_label: Whether an examination may have several labels.
    """
    width = first.shape[1] // 3
    truth = first[:, 2 * width :].sum(axis=0)
    ratios = {name: answer_ratios(name, truth, multi_label) for name in OF_ANSWERS}
    defined = {name: one for name, one in ratios.items() if one.weights.any()}
    drawn, tried = swap_differences(first, second, [one.value for one in defined.values()])
    for (name, one), differences in zip(defined.items(), drawn, strict=True):
        yield name, with_swaps(ratio_difference(first, second, one), differences, tried)


def mask_gains(first: Masks, second: Masks) -> Iterator[tuple[str, Interval]]:
    """Yield metric and gain of the first segmentation model over the second, of the same cases.

    A case takes part where both models have a value: an HD95 is not defined where nothing was
    found. A gain is positive where the first is better, also for HD95.
    """
    for metric in OF_CASES:
        values = [mask_values(one, metric) for one in (first, second)]
        both = ~np.isnan(values[0]) & ~np.isnan(values[1])
        if not both.any():
            continue
        columns = [
            of_patients(case_columns(np.where(both, one, math.nan)), first.patients)
            for one in values
        ]
        ratios = case_ratios(both.sum(axis=0), bounded=metric != "hd95")
        drawn, tried = swap_differences(columns[0], columns[1], [ratios.value])
        found = with_swaps(ratio_difference(columns[0], columns[1], ratios), drawn[0], tried)
        yield metric, _turned(found) if metric == "hd95" else found


def _auroc_gain(first: Scores, second: Scores, labels: Labels) -> Interval | None:
    binary = len(labels.classes) == 2 and not labels.multi_label
    classes = slice(1, 2) if binary else slice(None)
    scores = [one.scores[:, classes] for one in (first, second)]
    truth = first.labels[:, classes]
    sums = placement_sums_of_scores(
        np.concatenate(scores, axis=1), np.concatenate([truth, truth], axis=1), first.patients
    )
    weights = paired_weights(sums)
    if not weights.any():
        return None
    found = auroc_difference(sums, weights)
    if sums.patients > _MOST_SWAPPED or _pairs(sums) > _MOST_PAIRS:
        return found
    mean = weights[: len(weights) // 2]
    pair = scores[0], scores[1]
    return with_swaps(found, *auroc_swap_differences(pair, truth, first.patients, mean))


def _pairs(sums: PlacementSums) -> float:
    """Return the most pairs of images that a class has."""
    return float((sums.totals[:, 1] * sums.totals[:, 3]).max(initial=0))


def _turned(gain: Interval) -> Interval:
    """Return a gain where less is better."""
    return t_interval(-gain.value, gain.standard_error, gain.freedom, gain.patients)
