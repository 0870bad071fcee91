"""A study's packs reduced to what a site's policy lets out: no number is of too few patients.

As for statistics (:mod:`wardround.client.egress.answers.statistics_disclosure`) a cell counts as
many patients as would make it if each gave as much as the one who gives most. Neighbouring bins of
scores with too few are counted together, counts are rounded down to a multiple of the smallest
cell, means have three decimals. Where one class has too few patients nothing is told by class, for
the few would follow from the others; of groups the smallest are left out until those that are left
out are many. Rounding is not differential privacy.
"""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wardround.client.egress.answers.statistics_disclosure import (
    Neighbours,
    large_cells,
    neighbours,
    patient_size,
)
from wardround.client.egress.message_schema import DECIMALS, rounded_down
from wardround.client.egress.packs.tables import (
    binned,
    by_patient,
    counted,
    differences,
    named_classes,
    numerators,
)
from wardround.client.session.packs import Cases, Flags, Floats, MeasuredPacks, Validation
from wardround.client.training.case_predictions import ClassifiedCases
from wardround.common.metrics.packs.calibration import MARGIN, CalibrationPack
from wardround.common.metrics.packs.gains import GainPack
from wardround.common.metrics.packs.intervals import IntervalPack, PlacementSums, placed
from wardround.common.metrics.packs.ratios import RatioSums
from wardround.common.metrics.packs.registry import Pack, Packs, empty_packs
from wardround.common.metrics.packs.score_counts import ScoreCounts
from wardround.common.metrics.packs.subgroups import SubgroupPack
from wardround.common.statistics.decisions.recalibration import temperature_sums
from wardround.common.study.plans.packs import (
    INVERSE_TEMPERATURES,
    Ratio,
    gains_of,
    groups_of,
    measures_of_group,
    ratios_of,
)
from wardround.common.study.study import Study

Ints = NDArray[np.int64]


def reduce_packs(
    measured: MeasuredPacks, study: Study, least: int, allowed: Collection[str]
) -> Packs:
    """Return the packs that may leave; one that is not allowed is that of nobody.

    Args:
        least: How many patients each number must be of; with 1 nothing is reduced.
    """
    told = dict(empty_packs(study))
    told.update({name: _pack(name, measured, study, least) for name in told if name in allowed})
    return told


def told_patients(cases: Cases, least: int) -> int:
    """Return how many test patients there are, rounded down."""
    return rounded_down(len(np.unique(cases.patients)), least)


def _pack(name: str, measured: MeasuredPacks, study: Study, least: int) -> Pack:
    if name == "intervals":
        return _intervals(measured.cases, study, least)
    if name == "subgroups":
        return _subgroups(measured, study, least)
    if name == "gains" and measured.other is not None:
        return _gains(measured.cases, measured.other, study, least)
    if isinstance(measured.cases, ClassifiedCases) and measured.validation is not None:
        return _calibration(measured.cases, measured.validation, study, least)
    msg = f"the pack {name} was not measured"
    raise TypeError(msg)


# --- Intervals
def _intervals(cases: Cases, study: Study, least: int) -> IntervalPack:
    ratios = ratios_of(study)
    sums = _ratio_sums(cases, numerators(cases, ratios, study), ratios, least)
    if not isinstance(cases, ClassifiedCases):
        return IntervalPack(sums, None, None)
    if _has_small_class(cases, least):
        by_class = np.array([bool(one.class_name) for one in ratios])
        sums = _without(sums, by_class)
    counts, _ = told_counts(cases, study, least)
    return IntervalPack(sums, counts, placements(cases, counts, study, least))


def _ratio_sums(
    cases: Cases, parts: tuple[Floats, Floats], ratios: Sequence[Ratio], least: int
) -> RatioSums:
    above, below = (by_patient(part, cases.patients) for part in parts)
    sums = _sums_of_rows(above, below, least)
    # A distance has no bound that many patients reach: the sum of squares would be the worst one's.
    far = [
        one.metric == "hd95" and _is_small(column**2, least)
        for one, column in zip(ratios, above.T, strict=True)
    ]
    return _without(sums, np.array(far, dtype=np.bool_))


def _sums_of_rows(above: Floats, below: Floats, least: int) -> RatioSums:
    """Return the sums of ``(P, R)`` numbers, each ratio with enough patients or of nobody."""
    patients = (below > 0).sum(axis=0)
    told = np.array([patient_size(column**2) >= least for column in below.T], dtype=np.bool_)
    told &= patients > 0
    products = (above, below, above**2, above * below, below**2)
    totals = np.stack([part.sum(axis=0) for part in products], axis=1)
    counts = np.maximum(patients, 1)[:, None]
    means = _rounded(totals / counts, least) * told[:, None]
    return RatioSums(_multiples(patients, least) * told, means)


def _without(sums: RatioSums, hidden: Flags) -> RatioSums:
    return RatioSums(sums.patients * ~hidden, sums.means * ~hidden[:, None])


def _has_small_class(cases: ClassifiedCases, least: int) -> bool:
    """Return whether a class, or all that is not of it, has patients, and too few of them."""
    sides = np.concatenate([cases.truth, ~cases.truth], axis=1).astype(float)
    rows = by_patient(sides, cases.patients)
    # Sums of squares are told too: with one patient of many images they are his.
    return any(_is_small(column**2, least) for column in rows.T)


def _is_small(given: Floats, least: int) -> bool:
    """Return whether somebody gives something, and too few do."""
    return bool(given.any()) and patient_size(given) < least


def told_counts(
    cases: ClassifiedCases, study: Study, least: int
) -> tuple[ScoreCounts, tuple[Ints, Ints]]:
    """Return the histograms of scores that may leave, and where each bin is counted.

    Returns:
        The counts; and for the positives and the negatives ``(K, bins)`` the bin in which a bin's
        examinations are told.
    """
    classes, bins = study.class_count, study.evaluation.pack_bins
    counts = ScoreCounts.empty(classes, bins)
    where = np.tile(np.arange(bins), (2, classes, 1))
    if _has_small_class(cases, least):
        return counts, (where[0], where[1])
    places = binned(cases.scores, bins)
    for k in range(classes):
        sides = (counts.positives[k], cases.truth[:, k]), (counts.negatives[k], ~cases.truth[:, k])
        for side, (told, chosen) in enumerate(sides):
            rows = counted(places[:, k], chosen, cases.patients, bins)
            told[:] = _told_bins(rows, least, where[side, k])
    return counts, (where[0], where[1])


def _told_bins(rows: Floats, least: int, where: Ints) -> Ints:
    """Return ``(bins,)`` counts that may leave; ``where`` takes in where each bin is told."""
    if least <= 1:
        return np.asarray(rows.sum(axis=0), dtype=np.int64)
    told = np.zeros(rows.shape[1], dtype=np.int64)
    for one in neighbours(rows, least):
        where[one.start : one.end] = one.told
        told[one.told] = rounded_down(round(float(rows[:, one.start : one.end].sum())), least)
    return told


def placements(
    cases: ClassifiedCases, against: ScoreCounts, study: Study, least: int
) -> PlacementSums:
    """Return the sums of squared placement values against histograms, the site's own or merged.

    An examination is placed from the cell in which it was told, and not from its own score, and a
    cell's examinations weigh together what was told of them. So of patients with one examination
    each the answer follows from the told cells and numbers of patients alone: whoever chose the
    histograms learns nothing from it. Of patients with several it says how alike theirs are.
    """
    own, told = told_counts(cases, study, least)
    of_positives, of_negatives, areas = placed(against)
    places = binned(cases.scores, study.evaluation.pack_bins)
    sums = PlacementSums.empty(study.class_count)
    for k in range(study.class_count):
        if not own.tells(k) or not np.isfinite(areas[k]):
            continue
        true = cases.truth[:, k]
        ahead = _placed(
            true, told[0][k][places[:, k]], own.positives[k], of_positives[k] - areas[k]
        )
        behind = _placed(
            ~true, told[1][k][places[:, k]], own.negatives[k], of_negatives[k] - areas[k]
        )
        sides = np.stack([true, ~true], axis=1).astype(float)
        rows = by_patient(np.column_stack([ahead, behind, sides]), cases.patients)
        if any(_is_small(rows[:, side] ** 2, least) for side in (2, 3)):
            continue
        totals = [(rows[:, a] * rows[:, b]).sum() for a, b in ((0, 0), (1, 1), (0, 1))]
        people = _multiples([*(rows[:, 2:] > 0).sum(axis=0), len(rows)], least)
        sums.patients[k] = people
        sums.means[k] = _rounded(np.array(totals) / np.maximum(people, 1), least)
    return sums


def _placed(chosen: Flags, cells: Ints, told: Ints, values: Floats) -> Floats:
    """Return ``(N,)`` placement values of the chosen examinations, 0 of the others.

    Args:
        cells: ``(N,)`` in which cell each examination is told.
        told: ``(bins,)`` how many each cell tells: fewer than there are, so each weighs less.
        values: ``(bins,)`` placement value of each cell.
    """
    there = np.bincount(cells[chosen], minlength=len(told))
    weights = np.sqrt(np.divide(told, there, out=np.zeros(len(told)), where=there > 0))
    return np.where(chosen, values[cells] * weights[cells], 0.0)


# --- Calibration
def _calibration(
    cases: ClassifiedCases, validation: Validation, study: Study, least: int
) -> CalibrationPack:
    pack = CalibrationPack.empty(study)
    right: Flags = np.asarray((cases.truth & named_classes(cases, study)).any(axis=1))
    top = cases.scores.max(axis=1) if len(cases.scores) else np.zeros(0)
    bins = study.evaluation.pack_bins
    places = binned(top, bins)
    sides = [counted(places, chosen, cases.patients, bins) for chosen in (~right, right)]
    # Few that are wrong would follow from how many are right and how many there are.
    few = any(_is_small(rows.sum(axis=1), least) for rows in sides)
    for side, rows in enumerate(() if few else sides):
        chosen = right if side else ~right
        for one in _bins_of(rows, least):
            inside = chosen & (places >= one.start) & (places < one.end)
            pack.counts[side, one.told] = rounded_down(int(inside.sum()), least)
            pack.scores[side, one.told] = _rounded(top[inside].mean(), least)
    return _with_fit(pack, validation, least)


def _bins_of(rows: Floats, least: int) -> list[Neighbours]:
    if least > 1:
        return neighbours(rows, least)
    return [Neighbours(int(b), int(b) + 1, int(b)) for b in np.flatnonzero(rows.sum(axis=0))]


def _with_fit(pack: CalibrationPack, validation: Validation, least: int) -> CalibrationPack:
    """Add the fit's sums, where enough validation patients have a part in them."""
    logits, patients = validation.logits, validation.patients
    people = np.unique(patients)
    sizes = by_patient(np.ones((len(patients), 1)), patients)[:, 0]
    if not len(people) or patient_size(sizes**2) < least:
        return pack
    if least > 1:  # one absurd logit must not be the whole sum
        logits = np.maximum(logits - logits.max(axis=1, keepdims=True), -MARGIN)
    told = []
    for inverse in INVERSE_TEMPERATURES:
        sums = temperature_sums(logits, validation.truth, inverse)
        told.append((sums.gradient[0], sums.hessian[0, 0]))
    fit = _rounded(np.array(told) / len(people), least)
    count = np.array([rounded_down(len(people), least)])
    return CalibrationPack(pack.counts, pack.scores, count, fit)


# --- Subgroups
def _subgroups(measured: MeasuredPacks, study: Study, least: int) -> SubgroupPack:
    cases, measures = measured.cases, measures_of_group(study)
    above, below = numerators(cases, measures, study)
    parts = [
        tuple(by_patient(part * inside[:, None], cases.patients) for part in (above, below))
        for inside in measured.groups.T
    ]
    tops = np.concatenate([top for top, _ in parts], axis=1)
    bottoms = np.concatenate([bottom for _, bottom in parts], axis=1)
    sums = _sums_of_rows(tops, bottoms, least)
    # Of squares, as the sums are: a group that they leave out must not follow from the others.
    told = _told_groups(bottoms.reshape(len(bottoms), -1, len(measures)) ** 2, study, least)
    return SubgroupPack(_without(sums, ~told.reshape(-1)))


def _told_groups(rows: Floats, study: Study, least: int) -> Flags:
    """Return ``(G, M)`` of which groups which measure may be told, of ``(P, G, M)`` numbers."""
    told = np.zeros(rows.shape[1:], dtype=np.bool_)
    groupings = [grouping.name for grouping, _ in groups_of(study)]
    for name in dict.fromkeys(groupings):
        own = np.array([one == name for one in groupings])
        for measure in range(rows.shape[2]):
            cells = large_cells(rows[:, own, measure], least, is_ordered=False)
            told[own, measure] = cells > 0
    if study.task.classifies:  # one class's recall would follow from the others' and the accuracy
        there: Flags = np.asarray(rows.any(axis=0))
        few = there[:, 1:] & ~told[:, 1:]
        told[few.any(axis=1), 1:] = False
    return told


# --- Gains
def _gains(cases: Cases, other: Cases, study: Study, least: int) -> GainPack:
    found, known = differences(cases, other, gains_of(study), study)
    patients = known.sum(axis=0)
    told = patients >= max(least, 1)
    totals = np.stack([found.sum(axis=0), (found**2).sum(axis=0)], axis=1)
    means = _rounded(totals / np.maximum(patients, 1)[:, None], least)
    return GainPack(_multiples(patients, least) * told, means * told[:, None])


def _multiples(counts: ArrayLike, least: int) -> Ints:
    return np.asarray(counts, dtype=np.int64) // least * least


def _rounded(values: Floats, least: int) -> Floats:
    # Adding 0 makes a negative zero a plain one.
    return np.asarray(values if least <= 1 else np.round(values, DECIMALS) + 0.0)
