"""The interval of every number that a run's predictions give: its unit is the patient."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wardround.common.statistics.case_metrics import (
    OF_ANSWERS,
    answer_columns,
    answer_ratios,
    answers_of_scores,
    case_columns,
    case_ratios,
    class_ratio,
)
from wardround.common.statistics.clustered import (
    PatientSums,
    Ratios,
    metric_interval,
    of_patients,
    patient_sums,
)
from wardround.common.statistics.clustered_auroc import (
    auroc_interval,
    class_weights,
    placement_sums_of_scores,
)
from wardround.common.statistics.interval import Interval
from wardround.simulations.evidence.intervals.estimates import masks_together, together
from wardround.simulations.run_files.folder import ALL_SITES
from wardround.simulations.run_files.predictions import Key, Masks, Scores

Named = tuple[str, str, str, str]  # model, site, metric, class or "" for all
Cases = TypeVar("Cases", Scores, Masks)
OF_CASES = ("dice", "hd95", "surface-dice")


@dataclass(frozen=True, slots=True)
class Labels:
    """How a classification's examinations are labelled.

    Attributes:
        classes: In the study's order.
        multi_label: Whether an examination may have several.
    """

    classes: Sequence[str]
    multi_label: bool


def score_intervals(scores: Mapping[Key, Scores], labels: Labels) -> dict[Named, Interval]:
    """Return the intervals of a classification's test values, of every model at every site.

    Where several sites have a model's scores, those of all sites together stand beside them.
    """
    found: dict[Named, Interval] = {}
    for (model, site), cases in _with_all_sites(scores, together).items():
        for metric, name, interval in of_scores(cases, labels):
            found[model, site, metric, name] = interval
    return found


def mask_intervals(masks: Mapping[Key, Masks], classes: Sequence[str]) -> dict[Named, Interval]:
    """Return the intervals of a segmentation's test values, likewise.

    Args:
        masks: By (model, site, split).
        classes: The foreground classes in the study's order.
    """
    found: dict[Named, Interval] = {}
    for (model, site), cases in _with_all_sites(masks, masks_together).items():
        for metric, name, interval in of_masks(cases, classes):
            found[model, site, metric, name] = interval
    return found


def of_scores(cases: Scores, labels: Labels) -> Iterator[tuple[str, str, Interval]]:
    """Yield metric, class and interval of one model's scores, "" for all classes."""
    called = answers_of_scores(cases.scores, labels.multi_label)
    columns = answer_columns(called, cases.labels, labels.multi_label)
    sums = patient_sums(of_patients(columns, cases.patients))
    truth = sums.totals[2 * (len(sums.totals) // 3) :]
    for metric in OF_ANSWERS:
        ratios = answer_ratios(metric, truth, labels.multi_label)
        yield metric, "", metric_interval(sums, ratios)
        if metric == "f1":
            start = len(labels.classes) if labels.multi_label else 0
            yield from _of_classes(metric, labels.classes, sums, ratios, start)
    yield from _of_auroc(cases, labels)


def _of_auroc(cases: Scores, labels: Labels) -> Iterator[tuple[str, str, Interval]]:
    sums = placement_sums_of_scores(cases.scores, cases.labels, cases.patients)
    if len(labels.classes) == 2 and not labels.multi_label:
        if not math.isnan(sums.areas[1]):
            yield "auroc", "", auroc_interval(sums, np.array([0.0, 1.0]))
        return
    yield "auroc", "", auroc_interval(sums, class_weights(sums))
    for k, name in enumerate(labels.classes):
        if not math.isnan(sums.areas[k]):
            yield "auroc", name, auroc_interval(sums, np.eye(len(labels.classes))[k])


def of_masks(cases: Masks, classes: Sequence[str]) -> Iterator[tuple[str, str, Interval]]:
    """Yield metric, class and interval of one model's masks, "" for the mean over classes."""
    for metric in OF_CASES:
        values = mask_values(cases, metric)
        if np.isnan(values).all():
            continue
        sums = patient_sums(of_patients(case_columns(values), cases.patients))
        ratios = case_ratios(sums.totals[len(classes) :], bounded=metric != "hd95")
        yield metric, "", metric_interval(sums, ratios)
        yield from _of_classes(metric, classes, sums, ratios, 0)


def mask_values(cases: Masks, metric: str) -> NDArray[np.float64]:
    """Return ``(N, K - 1)`` values of a metric, NaN where a case has none."""
    return {"dice": cases.dice, "hd95": cases.hd95, "surface-dice": cases.surface_dice}[metric]


def _of_classes(
    metric: str, classes: Sequence[str], sums: PatientSums, ratios: Ratios, start: int
) -> Iterator[tuple[str, str, Interval]]:
    for k, name in enumerate(classes):
        if ratios.weights[start + k] > 0:
            yield metric, name, metric_interval(sums, class_ratio(ratios, start + k))


def _with_all_sites(
    given: Mapping[Key, Cases], join: Callable[[Sequence[Cases]], Cases]
) -> dict[tuple[str, str], Cases]:
    """Return the test cases by model and site, and of models that every site has, all together."""
    test = {
        (model, site): cases for (model, site, split), cases in given.items() if split == "test"
    }
    held: dict[str, list[Cases]] = {}
    for (model, _), cases in test.items():
        held.setdefault(model, []).append(cases)
    sites = len({site for _, site in test})
    whole = {
        (model, ALL_SITES): join(parts) for model, parts in held.items() if len(parts) == sites
    }
    return {**test, **whole}
