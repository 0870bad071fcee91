"""The verdict: did each hospital gain from training together? Pure functions over the rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from wardround.common.statistics.clustered import satterthwaite
from wardround.common.statistics.interval import (
    LEVEL,
    Interval,
    t_quantile,
    two_sided_p,
    unknown_interval,
)
from wardround.common.statistics.multiple import holm_levels
from wardround.common.statistics.power import patients_needed, rounded_patients
from wardround.common.study.registry import METRICS
from wardround.simulations.evidence.intervals.run_intervals import Named
from wardround.simulations.evidence.intervals.sampling_error import (
    PatientCounts,
    interval_without_patients,
    value_error,
)
from wardround.simulations.run_files.folder import (
    ALL_SITES,
    FEDERATED,
    PAIRED,
    POOLED,
    MetricRow,
    SplitRow,
    local_model,
)

Outcome = Literal["gained", "lost", "no clear difference", "cannot be told", "not compared"]
# The smallest difference that a study should be able to tell, to say "no clear difference".
SMALLEST = 0.02  # of a metric in [0, 1]
_SMALLEST_SHARE = 0.05  # of the own model's value, for distances
_ROUNDING = 1e-5  # scores are kept to the digits of float32
_MANY = 1e9  # degrees of freedom where the number of patients is not known


@dataclass(frozen=True, slots=True)
class SiteVerdict:
    """One hospital: its own model, the federated and the pooled one on its test patients.

    Attributes:
        own: Value of the model that the site trained alone; NaN if not measured, as all values.
        federated: Value of the federated model.
        pooled: Value of the model trained on everybody's data in one place.
        gain: Federated beside own; positive is better, whatever the metric's direction.
        error: Standard error of the gain; NaN where it cannot be told.
        bound: Largest error of the gain from binning scores.
        is_paired: Whether both models were compared patient by patient.
        patients: Test patients behind the gain; 0 where their number is not known.
        freedom: Degrees of freedom of the error.
        level: Of the interval: 0.95, or more where several hospitals are compared.
        smallest: The smallest difference that the study should be able to tell.
        spread: Standard error times the root of the patients, for a hospital that cannot know its
            own: the other hospitals'.
        widest: Half width of an interval that holds all gains there can be.
    """

    site: str
    own: float
    federated: float
    pooled: float
    gain: float
    error: float
    bound: float = 0.0
    is_paired: bool = False
    patients: int = 0
    freedom: float = _MANY
    level: float = LEVEL
    smallest: float = SMALLEST
    spread: float = math.nan
    widest: float = math.inf

    @property
    def lone_patient(self) -> bool:
        """Whether one patient was tested, so that nothing is known of how patients differ."""
        return self.patients == 1

    @property
    def has_interval(self) -> bool:
        """Whether the margin is that of an interval."""
        return not (self.lone_patient or math.isnan(self.margin))

    @property
    def margin(self) -> float:
        """Half width of the interval of the gain; NaN where it cannot be told."""
        found = t_quantile(self.freedom, self.level) * self.error + self.bound
        return found if math.isnan(found) else min(found, self.widest)

    @property
    def p_value(self) -> float:
        """Of no gain, for this hospital alone; 1 where it cannot be told."""
        if self.lone_patient or math.isnan(self.gain):
            return 1.0
        beyond = max(0.0, abs(self.gain) - self.bound)
        return two_sided_p(beyond, self.error, self.freedom)

    @property
    def outcome(self) -> Outcome:
        """The word for the gain."""
        margin = self.margin if self.has_interval else math.nan
        return judge_gain(self.gain, margin, self.smallest)

    @property
    def needed(self) -> int | None:
        """How many test patients it would take where it cannot be told; None if not known.

        To tell the gain that was seen, if that is the true one, or the smallest difference that
        matters if that is more.
        """
        if not self.patients:
            return None
        known = not self.lone_patient and not math.isnan(self.error)
        spread = self.error * math.sqrt(self.patients) if known else self.spread
        effect = max(abs(self.gain), self.smallest)
        count = patients_needed(spread, 1, effect, self.level)
        return None if count is None else rounded_patients(max(count, self.patients + 1))


@dataclass(frozen=True, slots=True)
class Verdict:
    """All hospitals, and their mean.

    Attributes:
        metric: A key of the catalogue's METRICS.
        sites: Every site of the run, in its order, compared or not.
    """

    metric: str
    sites: tuple[SiteVerdict, ...]

    @property
    def compared(self) -> tuple[SiteVerdict, ...]:
        """The sites that have both a federated and an own value."""
        return tuple(site for site in self.sites if site.outcome != "not compared")

    @property
    def paired(self) -> bool:
        """Whether all compared sites were compared patient by patient."""
        return bool(self.compared) and all(site.is_paired for site in self.compared)

    def with_outcome(self, outcome: Outcome) -> tuple[SiteVerdict, ...]:
        """Return the sites with this outcome."""
        return tuple(site for site in self.sites if site.outcome == outcome)

    @property
    def mean(self) -> SiteVerdict:
        """The unweighted mean over the compared sites; every hospital counts the same.

        Its error is that of a mean of independent values. NaN where one value is missing.
        """
        compared = self.compared
        error = math.sqrt(sum(site.error**2 for site in compared)) / max(1, len(compared))
        shares = np.array([site.error**2 for site in compared])
        freedom = satterthwaite(shares, np.array([site.freedom + 1.0 for site in compared]))
        return SiteVerdict(
            site="mean over hospitals",
            own=_mean([site.own for site in compared]),
            federated=_mean([site.federated for site in compared]),
            pooled=_mean([site.pooled for site in compared]),
            gain=_mean([site.gain for site in compared]),
            error=error,
            bound=_mean([site.bound for site in compared]),
            patients=1 if any(site.lone_patient for site in compared) else 0,
            freedom=_MANY if math.isnan(freedom) else freedom,
            smallest=_mean([site.smallest for site in compared]),
        )


def higher_is_better(metric: str) -> bool:
    """Return the direction of a metric; one that the catalogue does not know goes up."""
    entry = METRICS.get(metric)
    return entry is None or entry.higher_is_better


def in_unit_interval(metric: str) -> bool:
    """Return whether a metric lies between 0 and 1, of which 1 is best."""
    entry = METRICS.get(metric)
    return entry is None or entry.in_unit_interval


def gain_over(own: float, federated: float, metric: str) -> float:
    """Return by how much the federated model is better: positive is better for every metric."""
    return federated - own if higher_is_better(metric) else own - federated


def judge_gain(gain: float, margin: float, smallest: float = SMALLEST) -> Outcome:
    """Return the word for a gain.

    Args:
        gain: Positive is better; NaN if one of the two was not measured.
        margin: Half width of its interval; NaN where it cannot be told.
        smallest: A margin up to this would have shown what matters.
    """
    if math.isnan(gain):
        return "not compared"
    if math.isnan(margin):
        return "cannot be told"
    # A gain computed by subtraction may miss the margin by a rounding error only.
    if abs(gain) > margin + 1e-12:
        return "gained" if gain > 0 else "lost"
    return "no clear difference" if margin <= smallest else "cannot be told"


def judge(
    rows: Sequence[MetricRow],
    split: Sequence[SplitRow],
    metric: str,
    margin: float | None = None,
) -> Verdict:
    """Return the verdict of a run from the kept models' values on the test patients.

    Where the run compared both models patient by patient, that comparison is the verdict. Else they
    are judged as if tested on different patients. They were tested on the same ones, so the true
    error of the gain is smaller: the verdict errs towards "cannot be told".

    Several hospitals are several comparisons: their intervals are widened by Holm's method, so that
    the chance is at most 5 % that any hospital is said to differ that does not.

    Args:
        margin: The smallest difference that matters; by default 0.02, of distances 5 %.
    """
    paired = {
        row.site: row
        for row in rows
        if (row.model, row.split, row.metric) == (local_model(row.site), PAIRED, metric)
    }
    kept = {
        (row.model, row.site): row
        for row in rows
        if (row.round, row.split, row.metric, row.class_name) == (-1, "test", metric, "")
    }
    sites = [
        _judge_site(
            site,
            kept.get((local_model(site), site)),
            kept.get((FEDERATED, site)),
            kept.get((POOLED, site)),
            paired.get(site) or count_test_patients(split, site),
            margin,
        )
        for site in sites_of(rows, split)
    ]
    return Verdict(metric, _together(sites))


def interval_of(
    row: MetricRow, split: Sequence[SplitRow], known: Mapping[Named, Interval]
) -> Interval:
    """Return the interval of a kept model's test value; its unit is the patient.

    Args:
        row: With a value.
        split: Says how many patients a site tests, where no predictions are kept.
        known: From predictions. One of another value (a class that a hospital has not looked for
            counts there as absent) is not the row's.
    """
    found = known.get((row.model, row.site, row.metric, row.class_name))
    if found is not None and abs(found.value - row.value) <= row.error_bound + _ROUNDING:
        return found
    if row.class_name or row.site == ALL_SITES:
        return unknown_interval(row.value, 0)
    return interval_without_patients(row, count_test_patients(split, row.site))


def _together(sites: Sequence[SiteVerdict]) -> tuple[SiteVerdict, ...]:
    """Return the sites with the level of each one's interval, and what spread the others have."""
    compared = [site for site in sites if not math.isnan(site.gain)]
    levels = dict(
        zip(
            [site.site for site in compared],
            holm_levels([site.p_value for site in compared]),
            strict=True,
        )
    )
    known = [s.error**2 * s.patients for s in compared if s.has_interval and s.patients]
    spread = math.sqrt(sum(known) / len(known)) if known else math.nan
    return tuple(replace(site, level=levels.get(site.site, LEVEL), spread=spread) for site in sites)


def sites_of(rows: Sequence[MetricRow], split: Sequence[SplitRow]) -> tuple[str, ...]:
    """Return the hospitals in their order; the place where all data was pooled is none."""
    federated = [row.site for row in rows if row.model == FEDERATED]
    names = dict.fromkeys([row.site for row in split] + federated)
    names.pop(ALL_SITES, None)
    return tuple(names)


def count_test_patients(split: Sequence[SplitRow], site: str) -> PatientCounts:
    """Return how many test patients a site has, in all and a class."""
    rows = [row for row in split if row.site == site and row.split == "test"]
    return PatientCounts(
        sum(row.patients for row in rows if not row.class_name),
        tuple(row.patients for row in rows if row.class_name),
        max((row.examinations / row.patients for row in rows if row.patients), default=1.0),
    )


def _judge_site(
    site: str,
    own: MetricRow | None,
    federated: MetricRow | None,
    pooled: MetricRow | None,
    known: PatientCounts | MetricRow,
    margin: float | None,
) -> SiteVerdict:
    gain, error, bound, patients = math.nan, math.nan, 0.0, 0
    smallest = SMALLEST if margin is None else margin
    if own and federated:
        gain = gain_over(own.value, federated.value, own.metric)
        bound = own.error_bound + federated.error_bound
        if isinstance(known, PatientCounts):
            error = math.hypot(value_error(own, known), value_error(federated, known))
            patients = known.total
        else:
            error, patients = known.standard_error, known.support
            gain = known.value
        if margin is None and not higher_is_better(own.metric):
            smallest = _SMALLEST_SHARE * own.value
    return SiteVerdict(
        site=site,
        own=own.value if own else math.nan,
        federated=federated.value if federated else math.nan,
        pooled=pooled.value if pooled else math.nan,
        gain=gain,
        error=error,
        bound=bound,
        is_paired=isinstance(known, MetricRow),
        patients=patients,
        freedom=patients - 1.0 if patients > 1 else _MANY,
        smallest=smallest,
        widest=1 + abs(gain) if own is not None and in_unit_interval(own.metric) else math.inf,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
