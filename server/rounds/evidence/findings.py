"""From what the sites told to rows: each number with an interval in which the loss is counted."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import combinations

import numpy as np

from wardround.common.messages.packs import SitePacks
from wardround.common.metrics.packs.calibration import (
    CalibrationPack,
    calibration_error,
    reliability,
    temperature,
)
from wardround.common.metrics.packs.gains import GainPack, gain_estimate
from wardround.common.metrics.packs.intervals import IntervalPack
from wardround.common.metrics.packs.ratios import Estimate, estimate
from wardround.common.metrics.packs.score_counts import cells_of
from wardround.common.metrics.packs.subgroups import SubgroupPack
from wardround.common.statistics.interval import (
    Interval,
    log_interval,
    score_interval,
    t_interval,
    t_quantile,
)
from wardround.common.study.plans.packs import (
    HD95_UNIT_MM,
    Ratio,
    compared_with,
    gains_of,
    group_ratios_of,
    groups_of,
    measures_of_group,
    ratios_of,
)
from wardround.common.study.study import Study
from wardround.server.checkpoints.evidence import EvidenceRow, finite, who_tells
from wardround.server.rounds.evaluation import ALL_SITES
from wardround.server.rounds.evidence.areas import area_rows
from wardround.server.rounds.evidence.collection import Evidence

RELIABILITY_BINS = 10
_Told = Mapping[str, tuple[SitePacks, ...]]
_COMPARED = {
    "initial": "less the model that training started from",
    "personal": "less the site's own personal model",
}


def evidence_rows(evidence: Evidence, study: Study) -> tuple[EvidenceRow, ...]:
    """Return the rows of all packs, of each site and of all sites together, and what is missing."""
    told: dict[str, tuple[SitePacks, ...]] = {
        site: (packs,) for site, packs in evidence.sites.items()
    }
    if evidence.sites:
        told[ALL_SITES] = tuple(evidence.sites.values())
    rows = list(_notes(evidence, study))
    makers: dict[str, Callable[[], Iterator[EvidenceRow]]] = {
        "intervals": lambda: _intervals(told, evidence, study),
        "calibration": lambda: _calibration(told),
        "subgroups": lambda: _subgroups(told, study),
        "gains": lambda: _gains(told, study),
    }
    for name in study.evaluation.pack:
        rows.extend(makers[name]())
    return tuple(rows)


def _notes(evidence: Evidence, study: Study) -> Iterator[EvidenceRow]:
    for site, packs in evidence.sites.items():
        words = [f"{packs.patients} test patients"]
        if packs.cell > 1:
            words.append(
                f"no number is of fewer than {packs.cell} patients, counts are rounded down to "
                f"multiples of {packs.cell} and means to three decimals"
            )
        if packs.withheld:
            named = [one for one in study.evaluation.pack if one in packs.withheld]
            words.append(f"its policy lets {', '.join(named)} not out")
        note = "; ".join(words)
        yield EvidenceRow("", site, "", "told", patients=packs.patients, note=note)
    for site, reason in evidence.refused.items():
        yield EvidenceRow("", site, "", "refused", note=reason)


def _cells(told: Sequence[SitePacks]) -> list[int]:
    return [packs.cell for packs in told]


# --- Intervals
def _intervals(told: _Told, evidence: Evidence, study: Study) -> Iterator[EvidenceRow]:
    ratios = ratios_of(study)
    for site, packs in told.items():
        parts = [one.packs["intervals"] for one in packs]
        sums = [one.ratios for one in parts if isinstance(one, IntervalPack)]
        for place, ratio in enumerate(ratios):
            row = ("intervals", site, ratio.class_name)
            yield _ratio_row(row, ratio, estimate(sums, place, _cells(packs)), len(packs))
        yield from area_rows(site, packs, evidence, study)


def _ratio_row(
    about: tuple[str, str, str], ratio: Ratio, found: Estimate, sites: int
) -> EvidenceRow:
    pack, site, subject = about
    interval = _interval(ratio, found)
    unit = HD95_UNIT_MM if ratio.metric == "hd95" else 1.0
    low, high = interval.low - found.lost, interval.high + found.lost
    if ratio.metric != "hd95":
        high = min(high, ratio.largest)
    return EvidenceRow(
        pack,
        site,
        subject,
        ratio.metric,
        finite(found.value * unit),
        finite(max(0.0, low) * unit if math.isfinite(low) else low),
        finite(high * unit),
        found.lost * unit,
        patients=found.patients,
        note=who_tells(found.sites, sites),
    )


def _interval(ratio: Ratio, found: Estimate) -> Interval:
    freedom = float(found.patients - 1) if found.patients > 1 else math.nan
    make = score_interval if ratio.largest == 1.0 else log_interval
    if math.isnan(found.value) or math.isnan(found.standard_error):
        nothing = math.nan
        return Interval(found.value, nothing, nothing, nothing, nothing, found.patients)
    return make(found.value, found.standard_error, freedom, found.patients)


# --- Calibration
def _calibration(told: _Told) -> Iterator[EvidenceRow]:
    for site, packs in told.items():
        parts = [one.packs["calibration"] for one in packs]
        sums = [one for one in parts if isinstance(one, CalibrationPack)]
        merged = reduce(CalibrationPack.plus, sums)
        for row in reliability(merged, RELIABILITY_BINS):
            yield EvidenceRow(
                "calibration",
                site,
                f"{row.low:.1f}-{row.high:.1f}",
                "share right",
                row.right,
                expected=row.score,
                patients=row.count,
            )
        error = calibration_error(merged, RELIABILITY_BINS)
        lost = _lost_of_calibration(sums, _cells(packs))
        yield EvidenceRow(
            "calibration",
            site,
            "",
            "expected calibration error",
            finite(error),
            finite(max(0.0, error - lost)) if lost else None,
            finite(min(1.0, error + lost)) if lost else None,
            lost,
            patients=int(merged.counts.sum()),
            note="" if merged.counts.any() else "too few examinations, or too few that are wrong",
        )
        found = temperature(merged)
        note = "" if math.isfinite(found) else "too few validation patients, or none fits"
        yield EvidenceRow(
            "calibration",
            site,
            "",
            "temperature",
            finite(found),
            patients=int(merged.patients[0]),
            note=note,
        )


def _lost_of_calibration(sums: Sequence[CalibrationPack], cells: Sequence[int]) -> float:
    """Return how far the calibration error can be off: whoever may be in another bin moves it."""
    moved = total = 0.0
    for one, cell in zip(sums, cells, strict=True):
        if cell <= 1:
            total += float(one.counts.sum())
            continue
        for side in one.counts:
            found = cells_of(side, cell)
            width = len(side) / RELIABILITY_BINS
            crosses = np.floor(found.low / width) != np.floor(found.high / width)
            moved += float((found.most - found.least).sum() + found.least[crosses].sum())
            total += float(found.least.sum())
    return min(1.0, 2 * moved / total) if total else 0.0


# --- Subgroups
def _subgroups(told: _Told, study: Study) -> Iterator[EvidenceRow]:
    ratios = group_ratios_of(study)
    for site, packs in told.items():
        parts = [one.packs["subgroups"] for one in packs]
        sums = [one.ratios for one in parts if isinstance(one, SubgroupPack)]
        found = [estimate(sums, place, _cells(packs)) for place in range(len(ratios))]
        for ratio, one in zip(ratios, found, strict=True):
            subject = " ".join(part for part in (ratio.group, ratio.class_name) if part)
            yield _ratio_row(("subgroups", site, subject), ratio, one, len(packs))
        yield from _gaps(site, found, study)


def _gaps(site: str, found: Sequence[Estimate], study: Study) -> Iterator[EvidenceRow]:
    """Yield, for each grouping, how far the worst group is behind the best.

    The two are chosen among all pairs, so the interval is Bonferroni's for as many.
    """
    measures, groups = measures_of_group(study), groups_of(study)
    for name in dict.fromkeys(grouping.name for grouping, _ in groups):
        places = [n for n, (grouping, _) in enumerate(groups) if grouping.name == name]
        for number, measure in enumerate(measures):
            known = [
                (groups[n][1], found[n * len(measures) + number])
                for n in places
                if math.isfinite(found[n * len(measures) + number].standard_error)
            ]
            if len(known) < 2:
                continue
            worst, best = (choose(known, key=lambda one: one[1].value) for choose in (min, max))
            pairs = len(list(combinations(known, 2)))
            value = best[1].value - worst[1].value
            error = math.hypot(best[1].standard_error, worst[1].standard_error)
            freedom = float(min(best[1].patients, worst[1].patients) - 1)
            reach = t_quantile(freedom, 1 - 0.05 / pairs) * error
            lost = best[1].lost + worst[1].lost
            subject = f"{name}: {best[0]} before {worst[0]} {measure.class_name}".strip()
            yield EvidenceRow(
                "subgroups",
                site,
                subject,
                f"gap of {measure.metric}",
                value,
                finite(value - reach - lost),
                finite(value + reach + lost),
                lost,
                patients=best[1].patients + worst[1].patients,
                note=f"corrected for {pairs} pairs of groups",
            )


# --- Gains
def _gains(told: _Told, study: Study) -> Iterator[EvidenceRow]:
    for site, packs in told.items():
        parts = [one.packs["gains"] for one in packs]
        sums = [one for one in parts if isinstance(one, GainPack)]
        for place, ratio in enumerate(gains_of(study)):
            found = gain_estimate(sums, place, _cells(packs))
            freedom = float(found.patients - 1) if found.patients > 1 else math.nan
            interval = t_interval(found.value, found.standard_error, freedom, found.patients)
            yield EvidenceRow(
                "gains",
                site,
                _COMPARED[compared_with(study)],
                f"difference of {ratio.metric}",
                finite(found.value),
                finite(interval.low - found.lost),
                finite(interval.high + found.lost),
                found.lost,
                patients=found.patients,
                note=who_tells(found.sites, len(packs)),
            )
