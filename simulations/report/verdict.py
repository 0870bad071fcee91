"""The verdict: did each hospital gain from training together? Pure functions over the rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wardround.common.study.registry import METRICS
from wardround.simulations.report.sampling_error import Z95, PatientCounts, value_error
from wardround.simulations.run_files.folder import (
    ALL_SITES,
    FEDERATED,
    PAIRED,
    POOLED,
    MetricRow,
    SplitRow,
    local_model,
)

Outcome = Literal["gained", "lost", "no clear difference", "not compared"]


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
        lone_patient: Whether one patient was tested, so that nothing is known of how patients
            differ: the error is then the largest there can be. It judges, and is not shown.
    """

    site: str
    own: float
    federated: float
    pooled: float
    gain: float
    error: float
    bound: float = 0.0
    is_paired: bool = False
    lone_patient: bool = False

    @property
    def has_interval(self) -> bool:
        """Whether the margin is that of an interval."""
        return not (self.lone_patient or math.isnan(self.margin))

    @property
    def margin(self) -> float:
        """Half width of the 95 % interval of the gain; NaN where it cannot be told."""
        return Z95 * self.error + self.bound

    @property
    def outcome(self) -> Outcome:
        """The word for the gain."""
        return judge_gain(self.gain, self.margin)


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
        return SiteVerdict(
            site="mean over hospitals",
            own=_mean([site.own for site in compared]),
            federated=_mean([site.federated for site in compared]),
            pooled=_mean([site.pooled for site in compared]),
            gain=_mean([site.gain for site in compared]),
            error=error,
            bound=_mean([site.bound for site in compared]),
            lone_patient=any(site.lone_patient for site in compared),
        )


def higher_is_better(metric: str) -> bool:
    """Return the direction of a metric; one that the catalogue does not know goes up."""
    entry = METRICS.get(metric)
    return entry is None or entry.higher_is_better


def gain_over(own: float, federated: float, metric: str) -> float:
    """Return by how much the federated model is better: positive is better for every metric."""
    return federated - own if higher_is_better(metric) else own - federated


def judge_gain(gain: float, margin: float) -> Outcome:
    """Return the word for a gain.

    Args:
        gain: Positive is better; NaN if one of the two was not measured.
        margin: Half width of its 95 % interval; where it is NaN, no difference is clear.
    """
    if math.isnan(gain):
        return "not compared"
    # A gain computed by subtraction may miss the margin by a rounding error only.
    if math.isnan(margin) or abs(gain) <= margin + 1e-12:
        return "no clear difference"
    return "gained" if gain > 0 else "lost"


def judge(rows: Sequence[MetricRow], split: Sequence[SplitRow], metric: str) -> Verdict:
    """Return the verdict of a run from the kept models' values on the test patients.

    Where the run compared both models patient by patient, that comparison is the verdict. Else they
    are judged as if tested on different patients. They were tested on the same ones, so the true
    error of the gain is smaller: the verdict errs towards "no clear difference".
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
    return Verdict(
        metric,
        tuple(
            _judge_site(
                site,
                kept.get((local_model(site), site)),
                kept.get((FEDERATED, site)),
                kept.get((POOLED, site)),
                paired.get(site) or count_test_patients(split, site),
            )
            for site in sites_of(rows, split)
        ),
    )


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
) -> SiteVerdict:
    gain, error, bound, lone = math.nan, math.nan, 0.0, False
    if own and federated:
        gain = gain_over(own.value, federated.value, own.metric)
        bound = own.error_bound + federated.error_bound
        if isinstance(known, PatientCounts):
            error = math.hypot(value_error(own, known), value_error(federated, known))
            lone = known.total == 1
        else:
            error = known.standard_error
    return SiteVerdict(
        site=site,
        own=own.value if own else math.nan,
        federated=federated.value if federated else math.nan,
        pooled=pooled.value if pooled else math.nan,
        gain=gain,
        error=error,
        bound=bound,
        is_paired=isinstance(known, MetricRow),
        lone_patient=lone,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
