"""From single patients' numbers to rows a patient of what a pack sums: nothing leaves from here."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wardround.client.session.packs import Cases, Flags, Floats
from wardround.client.training.case_predictions import ClassifiedCases
from wardround.common.study.plans.packs import HD95_UNIT_MM, Ratio
from wardround.common.study.study import Study

Ints = NDArray[np.int64]


def numerators(cases: Cases, ratios: Sequence[Ratio], study: Study) -> tuple[Floats, Floats]:
    """Return what each examination adds to each ratio, above and below: ``(N, R)`` twice."""
    above, below = [], []
    for one in ratios:
        if isinstance(cases, ClassifiedCases):
            top, bottom = _of_scores(cases, one, study)
        else:
            values = _of_masks(cases, one, study)
            bottom = np.isfinite(values).astype(float)
            top = np.nan_to_num(np.minimum(values, one.largest))
        above.append(top)
        below.append(bottom)
    shape = (len(ratios), len(cases.patients))
    return (
        np.array(above, dtype=np.float64).reshape(shape).T,
        np.array(below, dtype=np.float64).reshape(shape).T,
    )


def _of_scores(cases: ClassifiedCases, one: Ratio, study: Study) -> tuple[Floats, Floats]:
    truth, named = cases.truth, named_classes(cases, study)
    count = np.ones(len(truth))
    if one.metric == "brier":
        return brier(cases, study), count
    if one.metric == "accuracy":
        if study.data.multi_label:
            return (truth == named).mean(axis=1), count
        return (truth & named).sum(axis=1).astype(float), count
    place = study.data.classes.index(one.class_name)
    true, said = truth[:, place], named[:, place]
    both = (true & said).astype(float)
    if one.metric == "f1":
        return 2 * both, true.astype(float) + said
    if one.metric == "specificity":
        return (~true & ~said).astype(float), (~true).astype(float)
    return both, (true if one.metric == "recall" else said).astype(float)


def named_classes(cases: ClassifiedCases, study: Study) -> Flags:
    """Return ``(N, K)`` which class each examination is said to be of; of multi-label several."""
    if study.data.multi_label:
        return cases.scores >= 0.5
    best = cases.scores.argmax(axis=1) if len(cases.scores) else np.zeros(0, dtype=np.int64)
    named: Flags = best[:, None] == np.arange(study.class_count)
    return named


def brier(cases: ClassifiedCases, study: Study) -> Floats:
    """Return each examination's squared error of its scores (Brier 1950), ``(N,)``.

    Of two classes that of the second one's score, of several the sum over them, of several labels
    the mean.
    """
    errors = (cases.scores - cases.truth) ** 2
    if study.data.multi_label:
        return np.asarray(errors.mean(axis=1))
    return np.asarray(errors[:, 1] if study.class_count == 2 else errors.sum(axis=1))


def _of_masks(cases: Cases, one: Ratio, study: Study) -> Floats:
    if isinstance(cases, ClassifiedCases):
        msg = "scores are no masks"
        raise TypeError(msg)
    if one.metric == "dice" and not one.class_name:  # the mean over the classes that are there
        known = np.isfinite(cases.dice[:, 1:])
        totals = np.nan_to_num(cases.dice[:, 1:]).sum(axis=1)
        undefined = np.full(len(totals), np.nan)
        means = np.divide(totals, known.sum(axis=1), out=undefined, where=known.any(axis=1))
        return np.asarray(means)
    place = study.data.classes.index(one.class_name)
    if one.metric == "hd95":
        return np.asarray(cases.hd95_mm[:, place] / HD95_UNIT_MM)
    return cases.dice[:, place] if one.metric == "dice" else cases.surface_dice[:, place]


def by_patient(values: Floats, patients: Ints) -> Floats:
    """Return ``(P, R)`` sums over each patient's examinations, of ``(N, R)`` numbers."""
    _, place = np.unique(patients, return_inverse=True)
    count = int(place.max()) + 1 if len(place) else 0
    rows = np.zeros((count, values.shape[1]))
    np.add.at(rows, place, values)
    return rows


def binned(values: Floats, bins: int) -> Ints:
    """Return in which of equal bins of [0, 1] each of ``(N,)`` values lies; 1 in the last."""
    return np.minimum((np.clip(values, 0.0, 1.0) * bins).astype(np.int64), bins - 1)


def counted(places: Ints, chosen: Flags, patients: Ints, bins: int) -> Floats:
    """Return ``(P, bins)``: how many chosen examinations of each patient are in each bin."""
    _, place = np.unique(patients, return_inverse=True)
    count = int(place.max()) + 1 if len(place) else 0
    rows = np.zeros((count, bins))
    np.add.at(rows, (place[chosen], places[chosen]), 1.0)
    return rows


def differences(
    cases: Cases, other: Cases, ratios: Sequence[Ratio], study: Study
) -> tuple[Floats, Flags]:
    """Return each patient's difference of two models, ``(P, G)``, and whether there is one."""
    first, counts = (by_patient(part, cases.patients) for part in numerators(cases, ratios, study))
    second, others = (by_patient(part, other.patients) for part in numerators(other, ratios, study))
    known = (counts > 0) & (others > 0)
    means = [
        np.divide(top, bottom, out=np.zeros_like(top), where=known)
        for top, bottom in ((first, counts), (second, others))
    ]
    return means[0] - means[1], known
