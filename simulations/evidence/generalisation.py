"""What to expect at a hospital that took no part, and how much depends on the seed."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from wardround.common.statistics.interval import normal_quantile
from wardround.common.study.registry import METRICS
from wardround.simulations.run_files.folder import FEDERATED
from wardround.simulations.run_files.series import (
    CALIBRATION,
    LEFT_OUT,
    LEFT_OUT_EVERYBODY,
    TAKING_PART,
    MeasuredRow,
)


@dataclass(frozen=True, slots=True)
class Spread:
    """One model's metric at one hospital over seeds.

    Attributes:
        site: A hospital, or "" for the mean over hospitals of each seed.
        mean: Over seeds.
        deviation: Standard deviation over seeds; NaN of one seed.
        low, high: The least and the largest.
        interval: The mean over seeds of the two ends of the 95 % interval over patients.
    """

    site: str
    model: str
    metric: str
    mean: float
    deviation: float
    low: float
    high: float
    interval: tuple[float, float]
    patients: int
    seeds: int


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a hospital that took no part may expect.

    Attributes:
        value: Mean over the hospitals that were left out, each once, of all their patients: none of
            them was trained on.
        low, high: The least and the largest of them.
        worst: The hospital of the worst.
        test_value: Mean on the test patients alone, of the hospitals where it is defined both with
            and without them; NaN if not measured.
        taking_part: The same where these hospitals took part.
        gained: Hospitals that clearly gain from taking part: the interval of the gain is above 0,
            also once it is widened for the number of hospitals (Bonferroni).
        calibration: The worst calibration error of a hospital that was left out; NaN if none.
        calibration_site: Where that is.
    """

    metric: str
    value: float
    low: float
    high: float
    worst: str
    sites: int
    test_value: float
    taking_part: float
    gained: tuple[str, ...]
    calibration: float
    calibration_site: str


def spreads(rows: Sequence[MeasuredRow]) -> tuple[Spread, ...]:
    """Return every model's metric at every hospital over the seeds, and as mean over hospitals."""
    found: dict[tuple[str, str, str], list[MeasuredRow]] = {}
    for row in rows:
        found.setdefault((row.site, row.model, row.metric), []).append(row)
    each = [_spread(*key, held) for key, held in found.items()]
    kinds = dict.fromkeys((row.model, row.metric) for row in rows)
    return (*each, *(_mean_over_sites(rows, *kind) for kind in kinds))


def expectation(rows: Sequence[MeasuredRow], metric: str) -> Expectation | None:
    """Return what a hospital that took no part may expect; None where none was left out."""
    known = {(one.site, one.model, one.metric): one for one in spreads(rows) if one.site}
    left_out = [
        one
        for one in known.values()
        if (one.model, one.metric) == (LEFT_OUT_EVERYBODY, metric) and not math.isnan(one.mean)
    ]
    if not left_out:
        return None
    higher = METRICS[metric].higher_is_better
    ranked = sorted(left_out, key=lambda one: one.mean, reverse=not higher)
    pairs = [
        (known[one.site, LEFT_OUT, metric].mean, known[one.site, FEDERATED, metric].mean)
        for one in left_out
        if {(one.site, LEFT_OUT, metric), (one.site, FEDERATED, metric)} <= known.keys()
    ]
    pairs = [pair for pair in pairs if not any(map(math.isnan, pair))]
    gains = [known.get((one.site, TAKING_PART, metric)) for one in left_out]
    errors = [
        one
        for one in known.values()
        if (one.model, one.metric) == (LEFT_OUT_EVERYBODY, CALIBRATION) and not math.isnan(one.mean)
    ]
    off = max(errors, key=lambda one: one.mean, default=None)
    return Expectation(
        metric=metric,
        value=statistics.fmean(one.mean for one in left_out),
        low=min(one.mean for one in left_out),
        high=max(one.mean for one in left_out),
        worst=ranked[0].site,
        sites=len(left_out),
        test_value=statistics.fmean(pair[0] for pair in pairs) if pairs else math.nan,
        taking_part=statistics.fmean(pair[1] for pair in pairs) if pairs else math.nan,
        gained=_gained([one for one in gains if one is not None]),
        calibration=math.nan if off is None else off.mean,
        calibration_site="" if off is None else off.site,
    )


def _gained(gains: Sequence[Spread]) -> tuple[str, ...]:
    known = [one for one in gains if not math.isnan(one.interval[0])]
    if not known:
        return ()
    wider = normal_quantile(1 - 0.025 / len(known)) / normal_quantile(0.975)
    return tuple(one.site for one in known if one.mean - (one.mean - one.interval[0]) * wider > 0)


def _spread(site: str, model: str, metric: str, rows: Sequence[MeasuredRow]) -> Spread:
    values = [row.value for row in rows if not math.isnan(row.value)]
    ends = [(row.low, row.high) for row in rows if not math.isnan(row.low)]
    interval = (math.nan, math.nan)
    if ends and len(ends) == len(rows):
        interval = statistics.fmean(e[0] for e in ends), statistics.fmean(e[1] for e in ends)
    return Spread(
        site,
        model,
        metric,
        statistics.fmean(values) if values else math.nan,
        statistics.stdev(values) if len(values) > 1 else math.nan,
        min(values, default=math.nan),
        max(values, default=math.nan),
        interval,
        max(row.patients for row in rows),
        len(rows),
    )


def _mean_over_sites(rows: Sequence[MeasuredRow], model: str, metric: str) -> Spread:
    by_seed: dict[int, list[MeasuredRow]] = {}
    for row in rows:
        if (row.model, row.metric) == (model, metric) and not math.isnan(row.value):
            by_seed.setdefault(row.seed, []).append(row)
    means = [statistics.fmean(row.value for row in held) for held in by_seed.values()]
    patients = max((sum(row.patients for row in held) for held in by_seed.values()), default=0)
    return Spread(
        "",
        model,
        metric,
        statistics.fmean(means) if means else math.nan,
        statistics.stdev(means) if len(means) > 1 else math.nan,
        min(means, default=math.nan),
        max(means, default=math.nan),
        (math.nan, math.nan),
        patients,
        len(means),
    )
