"""How a survival task is measured: a concordance index and a calibration from sums that merge.

The concordance index (Harrell et al. 1982) is the share of comparable pairs of patients of which
the one with the earlier event has the higher risk; equal risks count one half. A pair is comparable
if the earlier time is an event; at equal times, if one is an event and the other is not. Follow-up
ends at the last of ``data.outcome.times``: whoever is followed beyond it had no event.

Pairs within a site are compared exactly by the site. Pairs across sites are compared by a table of
time by risk: exactly where both times and risks lie in different bins; equal bins of risk count one
half, and pairs whose times share a bin are left out. How far off that can be is the error bound.

Brier scores and the calibration at the horizon are weighted for censoring:
:mod:`wardround.common.metrics.censoring`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from wardround.common.metrics.censoring import (
    PREDICTED,
    SEEN,
    WEIGHT,
    WEIGHTED_EVENTS,
    censored_errors,
    horizon_error,
    integrated,
    no_errors,
)
from wardround.common.metrics.task_sums import (
    Arrays,
    Counts,
    MetricValue,
    Sums,
    TaskSums,
    added,
    counts_of,
    no_counts,
    refuse,
    sums_of,
)
from wardround.common.study.study import Study

RISK_BINS = 100  # of the table
CALIBRATION_BINS = 10  # of the risk
_TIME_BINS = 24  # at most, unless the study has more times
_CHUNK = 1_000  # events that are compared with everybody at once
CENSORED, EVENT = 0, 1


@dataclass(frozen=True, slots=True, eq=False)
class SurvivalSums:
    """Counts over examinations; T bins of time up to the horizon and one for those beyond it.

    Attributes:
        table: ``(2, T + 1, RISK_BINS)`` examinations by event (second) or none, time and risk.
        exact: ``(2,)`` pairs within sites in the right order, ties one half, and comparable ones.
        own: ``(4,)`` what :func:`pairs_of_table` says of each site's own table, added up; it is
            taken away from what it says of the table of all, which leaves the pairs across sites.
        observed: ``(CALIBRATION_BINS,)`` events by the risk.
        expected: ``(CALIBRATION_BINS,)`` sums of the cumulative hazard that the model gives each
            patient up to the end of its follow-up; 0 where the loss gives none.
        brier: ``(T,)`` weighted squared errors of the probability of no event up to each time.
        told: ``(T,)`` examinations behind each of them; 0 where the loss gives no probability.
        horizon: ``(4, HORIZON_BINS)`` as :class:`CensoredErrors` has it.
    """

    OPTIONAL: ClassVar[frozenset[str]] = frozenset()

    table: Counts
    exact: Sums
    own: Sums
    observed: Counts
    expected: Sums
    brier: Sums
    told: Counts
    horizon: Sums

    @classmethod
    def empty(cls, study: Study, surfaces: bool) -> "SurvivalSums":
        """Return the counts over no examination; there are no surfaces."""
        times = len(time_edges(study))
        none = no_errors(times)
        return cls(
            no_counts(2, times + 1, RISK_BINS),
            np.zeros(2),
            np.zeros(4),
            no_counts(CALIBRATION_BINS),
            np.zeros(CALIBRATION_BINS),
            none.brier,
            none.told,
            none.horizon,
        )

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.generic]], examinations: int
    ) -> "SurvivalSums":
        """Return the counts that came as arrays, after checking that they can be true.

        Raises:
            InputError: They cannot.
        """
        sums = cls(
            counts_of(arrays, "table"),
            sums_of(arrays, "exact"),
            sums_of(arrays, "own"),
            counts_of(arrays, "observed"),
            sums_of(arrays, "expected"),
            sums_of(arrays, "brier"),
            counts_of(arrays, "told"),
            sums_of(arrays, "horizon"),
        )
        sums._check(examinations)
        sums._check_errors(examinations)
        return sums

    def _check(self, examinations: int) -> None:
        if int(self.table.sum()) != examinations:
            refuse("table", f"does not count the {examinations} examinations")
        if self.table[EVENT, -1].any():
            refuse("table", "holds an event after the last of data.outcome.times")
        if int(self.observed.sum()) != int(self.table[EVENT].sum()):
            refuse("observed", "does not count the events that table counts")
        right, comparable = self.exact
        if right > comparable or comparable > examinations * (examinations - 1) / 2:
            refuse("exact", "is more than there are pairs")
        if (self.own > pairs_of_table(self.table)).any():
            refuse("own", "is more pairs than the table has")

    def _check_errors(self, examinations: int) -> None:
        """Check what is weighted: a site's weights add up to its examinations."""
        slack = 1e-6 * (1 + examinations)
        if (self.told > examinations).any():
            refuse("told", f"counts more than the {examinations} examinations")
        if (self.brier > self.told + slack).any():
            refuse("brier", "holds errors above 1")
        seen, weight = self.horizon[SEEN], self.horizon[WEIGHT]
        if abs(float(seen.sum()) - float(self.told[-1])) > slack:
            refuse("horizon", "does not count the examinations that told counts")
        if (self.horizon[PREDICTED] > seen + slack).any() or (
            self.horizon[WEIGHTED_EVENTS] > weight + slack
        ).any():
            refuse("horizon", "holds probabilities above 1")
        if float(weight.sum()) > float(seen.sum()) + slack:
            refuse("horizon", "holds weights of more than its examinations")

    def to_arrays(self) -> Arrays:
        """Return the counts by name; the table, most of the bytes, as int32."""
        arrays: Arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**arrays, "table": self.table.astype(np.int32)}

    def plus(self, other: TaskSums, examinations: tuple[int, int]) -> "SurvivalSums":
        """Return the counts over the examinations of both.

        Raises:
            InputError: They were measured for different studies.
        """
        return added(self, other)

    def summarise(self, metric: str, examinations: int, study: Study) -> Iterator[MetricValue]:
        """Yield a metric.

        - c-index: as the module says.
        - calibration-error: over bins of the risk, how far the events that were seen are from those
          that the hazards let expect, added up, by the number of examinations.
        - brier: the Brier score as a mean over the time to the horizon, then at each of the study's
          times.
        - horizon-calibration-error: as :func:`horizon_error` says.

        All but the first are NaN with the loss "cox", which gives relative hazards only.
        """
        if metric == "c-index":
            yield self._concordance(examinations)
        elif metric == "brier":
            yield from self._brier(study)
        elif metric == "horizon-calibration-error":
            value, count = horizon_error(self.horizon)
            yield MetricValue(metric, "", value, count)
        else:
            total = float(self.expected.sum())
            known = total > 0 and examinations > 0
            off = float(np.abs(self.observed - self.expected).sum()) / max(examinations, 1)
            value, support = (off, examinations) if known else (math.nan, 0)
            yield MetricValue(metric, "", value, support)

    def _brier(self, study: Study) -> Iterator[MetricValue]:
        edges = time_edges(study)
        value = integrated(self.brier, self.told, edges)
        yield MetricValue("brier", "", value, int(self.told.max(initial=0)))
        for time in study.outcome.times:
            place = int(np.abs(edges - time).argmin())
            told = int(self.told[place])
            if told:
                at = study.outcome.with_unit(time)
                yield MetricValue("brier", at, float(self.brier[place]) / told, told)

    def _concordance(self, examinations: int) -> MetricValue:
        right, comparable, tied, unknown = np.maximum(pairs_of_table(self.table) - self.own, 0.0)
        right, comparable = right + self.exact[0], comparable + self.exact[1]
        if not comparable > 0:
            return MetricValue("c-index", "", math.nan, 0)
        value = float(right / comparable)
        every = comparable + unknown
        least, most = (right - tied / 2) / every, (right + tied / 2 + unknown) / every
        bound = max(float(most) - value, value - float(least), 0.0)
        error = _standard_error(self.table, value)
        return MetricValue("c-index", "", value, examinations, bound, error)

    def cells_behind(self, metric: str) -> Counts:
        """Return ``(2,)``: examinations without and with an event."""
        return np.asarray(self.table.sum(axis=(1, 2)), dtype=np.int64)


def time_edges(study: Study) -> Sums:
    """Return ``(T,)`` the upper ends of the table's bins of time: the study's, cut into parts."""
    times = np.array([0.0, *study.outcome.times])
    parts = max(1, _TIME_BINS // max(1, len(times) - 1))
    steps = np.arange(1, parts + 1) / parts
    return np.asarray((times[:-1, None] + np.diff(times)[:, None] * steps).ravel())


def time_rows(times: Sums, events: NDArray[np.bool_], edges: Sums) -> NDArray[np.int64]:
    """Return ``(N,)`` the bin of each time: upper ends belong to it; the last is for beyond.

    At the last edge an event is before it, and whoever was only followed is beyond.
    """
    rows = np.searchsorted(edges, times, side="left")
    return np.where(~events & (times >= edges[-1]), len(edges), rows)


def count_survival(
    times: Sums,
    events: NDArray[np.bool_],
    risks: Sums,
    hazards: Sums,
    edges: Sums,
    alive: Sums | None = None,
) -> SurvivalSums:
    """Return the counts over N examinations of one site.

    Args:
        times: ``(N,)`` at least 0.
        events: ``(N,)`` whether the time is that of an event, not of the end of follow-up.
        risks: ``(N,)`` in [0, 1]: higher for who has the event earlier.
        hazards: ``(N,)`` the cumulative hazard up to the time; 0 where there is none.
        edges: As :func:`time_edges` returns them.
        alive: ``(N, T)`` the probability of no event up to each of them; None where there is none.
    """
    times, events = at_horizon(times, events, float(edges[-1]))
    errors = no_errors(len(edges))
    if alive is not None:
        errors = censored_errors(times, events, alive, edges)
    rows = time_rows(times, events, edges)
    place = np.minimum((risks * RISK_BINS).astype(np.int64), RISK_BINS - 1)
    table = no_counts(2, len(edges) + 1, RISK_BINS)
    np.add.at(table, (events.astype(int), rows, place), 1)
    decile = np.minimum((risks * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    return SurvivalSums(
        table,
        exact_pairs(times, events, risks),
        pairs_of_table(table),
        np.bincount(decile[events], minlength=CALIBRATION_BINS),
        np.bincount(decile, weights=hazards, minlength=CALIBRATION_BINS).astype(np.float64),
        errors.brier,
        errors.told,
        errors.horizon,
    )


def at_horizon(
    times: Sums, events: NDArray[np.bool_], horizon: float
) -> tuple[Sums, NDArray[np.bool_]]:
    """Return times and events, ``(N,)`` each, as known at the horizon, where follow-up ends."""
    return np.minimum(times, horizon), events & (times <= horizon)


def exact_pairs(times: Sums, events: NDArray[np.bool_], risks: Sums) -> Sums:
    """Return ``(2,)``: pairs in the right order, ties one half, and comparable pairs."""
    right = comparable = 0.0
    for places in np.array_split(np.flatnonzero(events), max(1, int(events.sum()) // _CHUNK)):
        order = _later(times[places], times, events)
        comparable += float(order.sum())
        higher = (risks[places, None] > risks) & order
        tied = (risks[places, None] == risks) & order
        right += float(higher.sum()) + float(tied.sum()) / 2
    return np.array([right, comparable])


def _later(first: Sums, times: Sums, events: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return ``(E, N)``: who has no event yet when each of E events happens."""
    found: NDArray[np.bool_] = (times > first[:, None]) | ((times == first[:, None]) & ~events)
    return found


def pairs_of_table(table: Counts | Sums) -> Sums:
    """Return ``(4,)`` of pairs in different bins of time: right (ties one half), comparable, tied.

    The fourth are pairs whose times share a bin and of which one has an event: nobody knows in
    which order, or whether they can be compared.
    """
    both, event = table.sum(axis=0).astype(np.float64), table[EVENT].astype(np.float64)
    later = _after(both)
    lower = later.cumsum(axis=1) - later
    tied = float((event * later).sum())
    comparable = float((event.sum(axis=1) * later.sum(axis=1)).sum())
    right = float((event * lower).sum()) + tied / 2
    events, all_ = event.sum(axis=1), both.sum(axis=1)
    unknown = float((events * (events - 1) / 2 + events * (all_ - events)).sum())
    return np.array([right, comparable, tied, max(unknown, 0.0)])


def _after(rows: Sums) -> Sums:
    """Return for each bin of time what lies in the later ones, ``(T + 1, R)``."""
    found: Sums = rows[::-1].cumsum(axis=0)[::-1] - rows
    return found


def _standard_error(table: Counts | Sums, value: float) -> float:
    """Return the sampling error, by what each patient's pairs add (the delta method).

    Removing a patient changes the index by ``(c - C n) / pairs`` to first order, with c right ones
    among its n comparable pairs. The examinations count as independent.
    """
    both, event = table.sum(axis=0).astype(np.float64), table[EVENT].astype(np.float64)
    later, earlier = _after(both), event.cumsum(axis=0) - event
    # As the one with the event, compared with whoever comes later; and as the one who comes later.
    as_first = (later.cumsum(axis=1) - later / 2, later.sum(axis=1, keepdims=True))
    above = earlier.sum(axis=1, keepdims=True) - earlier.cumsum(axis=1)
    as_second = (above + earlier / 2, earlier.sum(axis=1, keepdims=True))
    pairs = float((event * as_first[1]).sum())
    if not pairs > 0:
        return 0.0
    second = as_second[0] - value * as_second[1]
    first = as_first[0] - value * as_first[1]
    spread = (event * (first + second) ** 2).sum() + (table[CENSORED] * second**2).sum()
    return math.sqrt(max(float(spread), 0.0)) / pairs
