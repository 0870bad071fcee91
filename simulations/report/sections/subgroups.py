"""Does it work as well for everybody? The federated model by group of test patients."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wardround.common.statistics.interval import Interval
from wardround.common.study.plans.subgroups import groupings_of
from wardround.simulations.evidence.intervals.estimates import Answered, all_together
from wardround.simulations.evidence.subgroups import (
    FEWEST_PATIENTS,
    GroupFinding,
    comparisons,
    find_groups,
    worst_of,
)
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.wording import metric_title, number, sentence_title, signed
from wardround.simulations.run_files.folder import FEDERATED
from wardround.simulations.run_files.groups import read_groups
from wardround.simulations.run_files.predictions import Key

_SPLIT = "test"
_NOTE = (
    "Gap: how much worse the model works for a group than for all other patients of that table; "
    "positive is worse. Intervals are 95 %, and their unit is the patient. p is of no gap, "
    "corrected for all gaps of this part (Holm): below 0.05 a gap is hardly chance. Groups of "
    f"fewer than {FEWEST_PATIENTS} patients are not shown, and with them so many others that "
    "nothing about them follows from the rest. A mean over classes is of the classes that a group "
    "has. The groups are not balanced in anything else: a gap may have other "
    "reasons than what the group is called after."
)


@dataclass(frozen=True, slots=True)
class WorstGroup:
    """The group that the federated model serves worst.

    Attributes:
        finding: Its value, gap and patients.
        metric: What they are of.
        sentence: The same in words.
    """

    finding: GroupFinding
    metric: str
    sentence: str


def subgroups_section(contents: RunContents) -> Section | None:
    """Return the part on subgroups; None where the study has none, or the run left no groups."""
    found = findings(contents)
    if not found:
        return None
    metric, worst = contents.metric, _worst(contents, found)
    groupings = list(dict.fromkeys(one.grouping for one in found))
    answer = [_nothing(found) if worst is None else worst.sentence]
    if hidden := [one for one in found if one.value is None]:
        named = ", ".join(dict.fromkeys(one.grouping for one in hidden))
        answer.append(
            f"Groups of fewer than {FEWEST_PATIENTS} patients are not shown (by {named}): so few "
            "say nothing for certain, and their numbers would tell of persons."
        )
    if one_group := _of_one_group(contents, groupings):
        answer.append(
            f"By {', '.join(one_group)} nothing is compared: all test patients are in one group."
        )
    return Section(
        anchor="subgroups",
        title="Does it work as well for everybody?",
        answer=tuple(answer),
        tables=tuple(_table(name, found, metric) for name in groupings),
        notes=(_NOTE,),
    )


def worst_group(contents: RunContents) -> WorstGroup | None:
    """Return the group that the federated model serves worst; None where nothing is known."""
    return _worst(contents, findings(contents))


def _worst(contents: RunContents, found: tuple[GroupFinding, ...]) -> WorstGroup | None:
    worst = worst_of(found)
    if worst is None or worst.gap is None or worst.value is None:
        return None
    metric, gap, count = contents.metric, worst.gap, len(comparisons(found))
    who = f"{worst.grouping} {worst.group}"
    value = (
        f"{metric_title(metric)} {number(worst.value.value, metric)}"
        f"{_reach(worst.value, metric)}, {worst.patients} test patients"
    )
    behind = f"{number(gap.value, metric)} worse than for the others{_reach(gap, metric)}"
    if worst.is_certain:
        sentence = f"It works less well for {who}: {value}; that is {behind}, hardly by chance."
    else:
        among = f" among {count} comparisons" if count > 1 else ""
        sentence = (
            f"No group is served worse for certain. The largest gap is that of {who}: {value}; "
            f"that is {behind}, which may be chance{among}."
        )
    return WorstGroup(worst, metric, sentence)


def findings(contents: RunContents) -> tuple[GroupFinding, ...]:
    """Return every group of the run; none where the study has none, or the run left no groups."""
    """Return every group of the run; empty where the study has none, or the run left no groups."""
    study = contents.study
    if study is None or not study.evaluation.subgroups:
        return ()
    by_grouping = read_groups(contents.folder)
    answered: Mapping[Key, Answered] = contents.scores or contents.masks or contents.outcomes
    held = {
        site: answers
        for (model, site, split), answers in answered.items()
        if model == FEDERATED and split == _SPLIT and len(answers.cases)
    }
    if not held or not by_grouping:
        return ()
    answers = all_together(list(held.values()))
    groups = {
        grouping: [
            places.get((site, _SPLIT), {}).get(int(case), "missing")
            for site, part in held.items()
            for case in part.cases
        ]
        for grouping, places in by_grouping.items()
    }
    order = {one.name: one.groups for one in groupings_of(study)}
    return find_groups(contents.metric, answers, groups, study.data.multi_label, order)


def _of_one_group(contents: RunContents, groupings: Sequence[str]) -> tuple[str, ...]:
    """Return by what the study groups its patients, and all of them are in one group."""
    asked = () if contents.study is None else groupings_of(contents.study)
    return tuple(one.name for one in asked if one.name not in groupings)


def _nothing(found: tuple[GroupFinding, ...]) -> str:
    groupings = dict.fromkeys(one.grouping for one in found)
    return (
        f"No group by {', '.join(groupings)} has a value to compare: a group needs "
        f"{FEWEST_PATIENTS} test patients, and some of each class."
    )


def _table(grouping: str, found: tuple[GroupFinding, ...], metric: str) -> Table:
    rows = tuple((one.group, _cells(one, metric)) for one in found if one.grouping == grouping)
    columns = ("test patients", sentence_title(metric), "gap to the others", "p")
    caption = f"The federated model on the test patients, by {grouping}."
    return Table(caption, grouping, columns, rows)


def _cells(one: GroupFinding, metric: str) -> tuple[Cell, ...]:
    if one.value is None:
        return Cell("–", "too few to show"), Cell("–"), Cell("–"), Cell("–")
    value, gap = one.value, one.gap
    shown_gap, p = Cell("–"), Cell("–")
    if gap is not None:
        shown_gap = Cell(signed(gap.value, metric), _interval(gap, metric), marked=one.is_certain)
        p = Cell("< 0.001" if one.p < 0.001 else f"{one.p:.3f}")
    return (
        Cell(str(one.patients)),
        Cell(number(value.value, metric), _interval(value, metric)),
        shown_gap,
        p,
    )


def _interval(found: Interval, metric: str) -> str:
    if math.isnan(found.low):
        return "no interval"
    return f"{number(found.low, metric)} to {number(found.high, metric)}"


def _reach(found: Interval, metric: str) -> str:
    return "" if math.isnan(found.low) else f" ({_interval(found, metric)})"
