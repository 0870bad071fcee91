"""AUROC, average precision and net benefit from the sites' histograms, and what coarsening lost."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from wardround.common.messages.packs import SitePacks
from wardround.common.metrics.packs.intervals import IntervalPack, PlacementSums, placement_error
from wardround.common.metrics.packs.ratios import STEP
from wardround.common.metrics.packs.score_counts import (
    Cells,
    ScoreCounts,
    area_bounds,
    cells_of,
    placement_slack,
    together,
)
from wardround.common.statistics.decisions.curves import count_histograms
from wardround.common.statistics.decisions.decision_curves import decision_curve
from wardround.common.statistics.interval import logit_interval
from wardround.common.statistics.precision_recall import average_precision_from_histograms
from wardround.common.study.study import Study
from wardround.server.checkpoints.evidence import EvidenceRow, finite, who_tells
from wardround.server.rounds.evidence.collection import Evidence

_PLACES = 17  # between the bounds of an area at which its interval is looked at
THRESHOLDS = (0.1, 0.2, 0.3, 0.5)  # of the net benefit


def area_rows(
    site: str, packs: Sequence[SitePacks], evidence: Evidence, study: Study
) -> Iterator[EvidenceRow]:
    """Yield what the histograms of some sites say of each class.

    Args:
        site: The site's name, or that of all together.
        packs: Of one site; of several the second exchange is needed for the interval.
    """
    parts = [one.packs["intervals"] for one in packs]
    told = [
        (one, own.cell)
        for one, own in zip(parts, packs, strict=True)
        if isinstance(one, IntervalPack) and one.counts is not None
    ]
    if not told:
        return
    counts = reduce(ScoreCounts.plus, (one.counts for one, _ in told if one.counts is not None))
    placed = _placements(site, packs, evidence, told[0][0])
    classes = study.data.classes
    asked = [1] if len(classes) == 2 and not study.data.multi_label else range(len(classes))
    for place in asked:
        if not (counts.positives[place].any() and counts.negatives[place].any()):
            note = "too few patients of the class, or of the others"
            yield EvidenceRow("intervals", site, classes[place], "auroc", note=note)
            continue
        telling = sum(one.counts is not None and one.counts.tells(place) for one, _ in told)
        note = who_tells(telling, len(packs))
        sides = _sides([(one.counts, cell) for one, cell in told if one.counts], place)
        rounded = any(cell > 1 for _, cell in told)
        row = _area(site, classes[place], (counts, place), placed, (*sides, rounded))
        yield replace(row, note=row.note or note)
        yield from _curves(site, classes[place], counts, place)


def _placements(
    site: str, packs: Sequence[SitePacks], evidence: Evidence, first: IntervalPack
) -> PlacementSums | None:
    """Return the sums behind the interval; None where a site that told did not place."""
    if site in evidence.sites:
        return first.own
    missing = [one.site for one in packs if one.site not in evidence.placements]
    if missing:
        return None
    return reduce(PlacementSums.plus, (evidence.placements[one.site] for one in packs))


def _sides(told: Sequence[tuple[ScoreCounts, int]], place: int) -> tuple[Cells, Cells]:
    return (
        together([cells_of(counts.positives[place], cell) for counts, cell in told]),
        together([cells_of(counts.negatives[place], cell) for counts, cell in told]),
    )


def _area(
    site: str,
    name: str,
    about: tuple[ScoreCounts, int],
    placed: PlacementSums | None,
    sides: tuple[Cells, Cells, bool],
) -> EvidenceRow:
    counts, place = about
    positives, negatives, rounded = sides
    value = float(counts.areas()[place])
    least, most = area_bounds(positives, negatives)
    lost = max(value - least, most - value)
    if placed is None or (placed.patients[place] < 2).any():
        note = "a site did not answer the second exchange, or too few patients are told of"
        return EvidenceRow("intervals", site, name, "auroc", finite(value), lost=lost, note=note)
    slack = (0.0, 0.0)
    if rounded:
        more = math.sqrt(STEP / 2)
        slack = (
            placement_slack(positives, negatives) + more,
            placement_slack(negatives, positives) + more,
        )
    error = placement_error(placed, counts, place, slack)
    ahead, behind, people = (int(count) for count in placed.patients[place])
    freedom = float(min(ahead, behind) - 1)
    # Wherever the area may lie, and around that how sure it is. Pairs within a bin count one half:
    # what that can lose is told beside it.
    places = np.linspace(least, most, _PLACES) if rounded else np.array([value])
    edge = 0.5 / min(ahead, behind)
    ends = [logit_interval(float(one), error, freedom, people, edge) for one in places]
    low, high = min(one.low for one in ends), max(one.high for one in ends)
    return EvidenceRow(
        "intervals",
        site,
        name,
        "auroc",
        value,
        finite(low),
        finite(high),
        lost,
        patients=people,
    )


def _curves(site: str, name: str, counts: ScoreCounts, place: int) -> Iterator[EvidenceRow]:
    positives = counts.positives[place].astype(float)
    negatives = counts.negatives[place].astype(float)
    precision = average_precision_from_histograms(positives, negatives)
    yield EvidenceRow("intervals", site, name, "average precision", finite(precision))
    curve = decision_curve(count_histograms(positives, negatives), np.array(THRESHOLDS))
    for threshold, benefit in zip(THRESHOLDS, curve.model, strict=True):
        metric = f"net benefit at {threshold:g}"
        yield EvidenceRow("intervals", site, name, metric, finite(float(benefit)))
