"""Does a model work as well for everybody? Each group with its interval, and its gap to the others.

A group of few patients is not shown, for its value would tell of them. Nor is it enough to leave
it out: what is left of the total would be the same. So what is hidden together has at least as many
patients as a group that is shown, and is more than one group.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wardround.common.statistics.interval import Interval
from wardround.common.statistics.multiple import holm_p_values
from wardround.common.study.registry import METRICS
from wardround.simulations.evidence.intervals.estimates import (
    Answered,
    chosen,
    difference,
    measure,
    p_value,
)

FEWEST_PATIENTS = 10
MOST_GROUPS = 12  # of one grouping; further ones are taken together
OTHERS = "others"
_CERTAIN = 0.05


@dataclass(frozen=True, slots=True)
class GroupFinding:
    """How well the model works for one group.

    Attributes:
        value: The metric of the group's patients; None where it is hidden.
        gap: By how much it works worse for them than for all other patients of the grouping:
            positive is worse, whatever the metric's direction. None where it is hidden, or there
            are no others.
        p: Of no gap, corrected for all gaps of the report (Holm 1979); 1 where there is none.
        patients: How many the group has; 0 where it is hidden.
    """

    grouping: str
    group: str
    value: Interval | None
    gap: Interval | None
    p: float
    patients: int

    @property
    def is_certain(self) -> bool:
        """Whether the model works worse for them, and chance alone would hardly do that."""
        return self.gap is not None and self.gap.value > 0 and self.p <= _CERTAIN


def find_groups(
    metric: str,
    answers: Answered,
    groups: Mapping[str, Sequence[str]],
    multi_label: bool = False,
    order: Mapping[str, Sequence[str]] | None = None,
) -> tuple[GroupFinding, ...]:
    """Return the groups of each grouping; one in which all are of one group is left out.

    Args:
        metric: A key of METRICS.
        answers: Of N examinations, whose ``patients`` tell all patients apart.
        groups: By each grouping the group of each of the N examinations.
        multi_label: Whether an examination may be of several classes.
        order: By each grouping its groups in the order that they are shown.
    """
    found: list[GroupFinding] = []
    for grouping, names in groups.items():
        found += _of_grouping(metric, answers, (grouping, _fewer(names)), multi_label)
    compared = comparisons(found)
    corrected = dict(
        zip(compared, holm_p_values([one.p for one in compared.values()]), strict=True)
    )
    keys = {one: key for key, one in _keyed(found)}
    found = [replace(one, p=corrected[keys[one]]) if one in keys else one for one in found]
    return tuple(sorted(found, key=lambda one: _place(one, order or {}, list(groups))))


def comparisons(found: Sequence[GroupFinding]) -> dict[tuple[str, ...], GroupFinding]:
    """Return each gap once: of two groups one is behind by what the other is ahead."""
    return dict(_keyed(found))


def _keyed(found: Sequence[GroupFinding]) -> list[tuple[tuple[str, ...], GroupFinding]]:
    groups = Counter(one.grouping for one in found)
    return [
        ((one.grouping,) if groups[one.grouping] == 2 else (one.grouping, one.group), one)
        for one in found
        if one.gap is not None
    ]


def worst_of(found: Sequence[GroupFinding]) -> GroupFinding | None:
    """Return the group with the largest gap, of the certain ones if there are any."""
    behind = [one for one in found if one.gap is not None and one.gap.value > 0]
    certain = [one for one in behind if one.is_certain]
    return max(certain or behind, key=lambda one: one.gap.value if one.gap else 0, default=None)


def hidden_groups(patients: Mapping[str, int], fewest: int = FEWEST_PATIENTS) -> frozenset[str]:
    """Return which groups may not be shown beside their total.

    Those of fewer patients, and with them the smallest others, until what is hidden is two groups
    or more and has together as many patients as a group that may be shown.

    Args:
        patients: Of each group; one without any is no group.
        fewest: Of a group that may be shown.
    """
    held = {name: count for name, count in patients.items() if count > 0}
    hidden = {name for name, count in held.items() if count < fewest}
    while hidden and hidden != held.keys():
        if len(hidden) > 1 and sum(held[name] for name in hidden) >= fewest:
            break
        shown = sorted(held.keys() - hidden)
        hidden.add(min(shown, key=lambda name: held[name]))
    return frozenset(hidden)


def _of_grouping(
    metric: str,
    answers: Answered,
    grouping: tuple[str, NDArray[np.str_]],
    multi_label: bool,
) -> list[GroupFinding]:
    title, names = grouping
    patients = {
        str(group): len(np.unique(answers.patients[names == group])) for group in np.unique(names)
    }
    hidden = hidden_groups(patients)
    if len(patients) < 2:
        return []
    lower_is_better = not METRICS[metric].higher_is_better
    found = []
    for group, count in patients.items():
        if group in hidden:
            found.append(GroupFinding(title, group, None, None, 1.0, 0))
            continue
        own = measure(metric, chosen(answers, names == group), multi_label)
        others = measure(metric, chosen(answers, names != group), multi_label)
        if own is None or others is None:
            return []
        gap = None
        if not math.isnan(own.value) and not math.isnan(others.value):
            gap = difference(own, others) if lower_is_better else difference(others, own)
        p = 1.0 if gap is None else p_value(gap)
        found.append(GroupFinding(title, group, own.interval, gap, p, count))
    return found


def _fewer(names: Sequence[str]) -> NDArray[np.str_]:
    """Return the groups with the rarest taken together where there are very many."""
    all_names = np.array(list(names), dtype=object)
    kinds, counts = np.unique(all_names.astype(str), return_counts=True)
    if len(kinds) > MOST_GROUPS:
        common = set(kinds[np.argsort(-counts, kind="stable")[: MOST_GROUPS - 1]].tolist())
        all_names = np.array(
            [n if n in common else OTHERS for n in all_names.tolist()], dtype=object
        )
    return np.asarray(all_names.astype(str))


def _place(
    one: GroupFinding, order: Mapping[str, Sequence[str]], groupings: Sequence[str]
) -> tuple[int, int, str]:
    known = list(order.get(one.grouping, ()))
    place = known.index(one.group) if one.group in known else len(known)
    return groupings.index(one.grouping), place, one.group
