"""A site's statistics, reduced to what its policy lets out: no cell holds too few patients.

A cell counts as many patients as would make it if each gave as much as the one who gives most
(``mass / largest``): so it has at least that many, and none of them is more than one part of them.
It needs ``smallest_cell`` patients. Where cells have an order, neighbours with too few are counted
together, in the middle of what they hold. Where they have none, they are left out; and since what
is left out follows from the total, it has to be so many patients too, or the next smallest cells
go with it. What is told is rounded.

Rounding is not differential privacy: see :mod:`wardround.client.egress.disclosure`.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.statistics import Measured, Rows
from wardround.client.egress.guard import Cells, Count, Exactly, MessageSchema, Rule
from wardround.client.egress.message_schema import DECIMALS, rounded_down
from wardround.client.policy.policy import Policy
from wardround.client.policy.rules import STATISTICS_RULE, DeniedError
from wardround.common.messages.statistics import (
    FACTS,
    HISTOGRAMS,
    PATIENTS,
    SiteStatistics,
    statistics_schema,
)
from wardround.common.metrics.noised.encoding import NORM_BOUND
from wardround.common.study.plans.patient_privacy import EvaluationPlan
from wardround.common.study.plans.statistics import (
    MOMENTS,
    asked_histograms,
    fewest_for_combat,
    patient_scale,
)
from wardround.common.study.study import Study

Flags = NDArray[np.bool_]


def reduce_statistics(
    measured: Measured, site: str, study: Study, policy: Policy
) -> SiteStatistics:
    """Return the statistics that may leave, of a study without privacy for patients."""
    least = policy.smallest_cell
    patients = rounded_down(measured.patients, least)
    cells = {}
    for one in asked_histograms(study):
        rows = measured.rows[one.name]
        kept = large_cells(rows, least, one.is_ordered)
        if least > 1:
            whole = one.is_whole
            kept = _rounded_counts(kept, least) if whole else _rounded_shares(kept, len(rows))
        elif not one.is_whole:
            kept = kept / max(measured.patients, 1)
        cells[one.name] = kept
    return SiteStatistics(site, study.digest, patients, cells)


def reduce_moments(
    measured: tuple[Rows, Rows], site: str, study: Study, policy: Policy
) -> SiteStatistics:
    """Return the sums that ComBat is fitted from, if no few patients are in any of them.

    They leave exact, for rounding would change what is fitted. A patient moves none of them by more
    than 1.

    Raises:
        DeniedError: Too few patients have all values, or share a value that a sum counts.
    """
    rows, sums = measured
    least = policy.smallest_cell
    fewest = fewest_for_combat(study, least)
    if len(rows) < fewest:
        msg = (
            f"fewer than {fewest} training patients have all values that ComBat is fitted to: ask "
            "for fewer columns, or leave this site out."
        )
        raise DeniedError(msg, (STATISTICS_RULE,), study.digest)
    if least > 1 and not _is_shared(rows, least):
        msg = (
            f"fewer than smallest_cell = {least} training patients share a value that the sums of "
            "ComBat count: leave the covariate with few values out."
        )
        raise DeniedError(msg, (STATISTICS_RULE,), study.digest)
    return SiteStatistics(site, study.digest, len(rows), {MOMENTS: sums})


def _is_shared(rows: Rows, least: int) -> bool:
    """Return whether enough patients have each value, and pair of values, that sums count.

    Sums of products count what columns of two values say, and of no others: there a sum is of as
    many patients as there are.
    """
    binary = [column for column in rows.T[1:] if len(np.unique(column)) == 2]
    flags = [np.ones(len(rows), dtype=np.bool_)]
    flags += [one for column in binary for one in (column == column.max(), column == column.min())]
    counts = [int((first & second).sum()) for first in flags for second in flags]
    return all(count == 0 or count >= least for count in counts)


def large_cells(rows: Rows, least: int, is_ordered: bool) -> Rows:
    """Return ``(cells,)``: what may be told of each cell, in patients.

    Args:
        rows: ``(P, cells)``, what each patient adds.
        least: How many patients a cell must have; with 1 every cell is told.
        is_ordered: Whether neighbours may be counted together.
    """
    if least <= 1:
        exact: Rows = rows.sum(axis=0)
        return exact
    if patient_size(rows.sum(axis=1)) < least:  # all of them together are too few
        return np.zeros(rows.shape[1])
    return _together(rows, least) if is_ordered else _left_out(rows, least)


def _together(rows: Rows, least: int) -> Rows:
    """Return the cells with neighbours that are too few counted in one of them."""
    mass, told = rows.sum(axis=0), np.zeros(rows.shape[1])
    for one in neighbours(rows, least):
        told[one.told] = mass[one.start : one.end].sum()
    return told


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Cells from ``start`` to before ``end`` that are counted together in ``told``."""

    start: int
    end: int
    told: int


def neighbours(rows: Rows, least: int) -> list[Neighbours]:
    """Return which cells with an order are counted together; none where all are too few.

    Args:
        rows: ``(P, cells)``, what each patient adds.
        least: How many patients each must have.
    """
    if not len(rows) or patient_size(rows.sum(axis=1)) < least:
        return []
    starts, group = [0], np.zeros(len(rows))
    for cell in range(rows.shape[1]):
        group = group + rows[:, cell]
        if patient_size(group) >= least:
            starts.append(cell + 1)
            group = np.zeros(len(rows))
    if group.any():  # the last ones are too few: they go with those before them
        starts.pop()
    found, mass = [], rows.sum(axis=0)
    for start, end in zip(starts, [*starts[1:], rows.shape[1]], strict=True):
        upto = np.cumsum(mass[start:end])
        if len(upto) and upto[-1] > 0:
            told = start + int(np.searchsorted(upto, upto[-1] / 2))
            found.append(Neighbours(start, end, told))
    return found


def _left_out(rows: Rows, least: int) -> Rows:
    """Return the cells without those that are too few, and without what these would follow from."""
    mass = rows.sum(axis=0)
    told: Flags = np.array([patient_size(column) >= least for column in rows.T], dtype=np.bool_)
    by_size = [int(cell) for cell in np.argsort(mass, kind="stable") if told[cell]]
    for cell in by_size:
        hidden = rows[:, ~told].sum(axis=1)
        if not hidden.any() or patient_size(hidden) >= least:
            break
        told[cell] = False
    kept: Rows = mass * told
    return kept


def patient_size(given: Rows) -> float:
    """Return how many patients who give as much as the largest would give as much as all."""
    largest = float(given.max(initial=0.0))
    # Ten equal tenths are ten patients, whatever their sum is rounded to.
    return float(given.sum()) / largest + 1e-9 if largest > 0 else 0.0


def _rounded_counts(cells: Rows, least: int) -> Rows:
    found: Rows = np.floor((cells + 1e-9) / least) * least
    return found


def _rounded_shares(cells: Rows, patients: int) -> Rows:
    """Return shares of which every sum from the first on has three decimals: so has a quantile."""
    upto = np.floor(np.cumsum(cells) / max(patients, 1) * 10**DECIMALS + 1e-9) / 10**DECIMALS
    found: Rows = np.round(np.diff(upto, prepend=0.0), DECIMALS)
    return found


def add_noise(measured: Measured, site: str, study: Study, plan: EvaluationPlan) -> SiteStatistics:
    """Return the statistics that may leave of a study with privacy for patients.

    A patient's vector, all histograms one after the other, is scaled and its norm looked at. Every
    call is another draw of the noise: who calls this pays for it first.
    """
    import torch

    from wardround.common.privacy.gaussian_mechanism import noised
    from wardround.common.privacy.secure_random import Randomness

    asked = asked_histograms(study)
    vectors = np.concatenate([measured.rows[one.name] for one in asked], axis=1)
    vectors = vectors * patient_scale(study)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    total = (vectors / np.maximum(norms, NORM_BOUND)).sum(axis=0)
    vector = noised(torch.from_numpy(total), plan.noise_multiplier, Randomness()).numpy()
    ends = np.cumsum([one.cells for one in asked])[:-1]
    parts = np.split(vector, ends)
    cells = {one.name: part.copy() for one, part in zip(asked, parts, strict=True)}
    return SiteStatistics(site, study.digest, 0, cells)


def statistics_message(site: str, study: Study, policy: Policy, private: bool) -> MessageSchema:
    """Return exactly what an answer may hold."""
    least = policy.smallest_cell
    if study.statistics.combat:
        return _moments_message(site, study, policy)
    header: dict[str, Rule] = {"site": Exactly(site), "digest": Exactly(study.digest)}
    arrays = {HISTOGRAMS: statistics_schema(study)}
    if private:
        return MessageSchema({"header": header}, {}, arrays)
    cells = {
        f"{HISTOGRAMS}/{one.name}": Cells(*_grain(one.is_whole, least))
        for one in asked_histograms(study)
    }
    facts: dict[str, Rule] = {PATIENTS: Count(least)}
    return MessageSchema({"header": header}, {FACTS: facts}, arrays, frozenset({FACTS}), cells)


def _moments_message(site: str, study: Study, policy: Policy) -> MessageSchema:
    header: dict[str, Rule] = {"site": Exactly(site), "digest": Exactly(study.digest)}
    fewest = fewest_for_combat(study, policy.smallest_cell)
    facts: dict[str, Rule] = {PATIENTS: Count(least=fewest)}
    return MessageSchema({"header": header}, {FACTS: facts}, {HISTOGRAMS: statistics_schema(study)})


def _grain(is_whole: bool, least: int) -> tuple[float, float]:
    """Return what every cell is a multiple of, 0 for anything, and the most of a cell."""
    if least == 1:
        return 0.0, math.inf if is_whole else 1.0
    return (float(least), math.inf) if is_whole else (10.0**-DECIMALS, 1.0)
