"""The tables of how well a model tells apart: areas, confusion matrices, shares by hospital."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wardround.common.statistics.bootstrap import average_precision_interval
from wardround.common.statistics.clustered_auroc import (
    auroc_interval,
    class_weights,
    placement_sums_of_scores,
)
from wardround.common.statistics.decisions.operating_points import (
    Operation,
    answer_sums,
    operate,
)
from wardround.common.statistics.interval import Interval, unknown_interval
from wardround.common.statistics.precision_recall import average_precision
from wardround.simulations.evidence.answers import WAYS, Answers, answers_at
from wardround.simulations.report.charts.printed import interval_cell
from wardround.simulations.report.charts.score_curves import (
    WAY_TITLES,
)
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.run_files.folder import FEDERATED

_DRAWS = 400  # of patients, for the interval of an average precision
_ALL = "all hospitals"


@dataclass(frozen=True, slots=True, eq=False)
class Tested:
    """What the section is made from: the test answers over all hospitals, and of each."""

    contents: RunContents
    multi_label: bool
    together: Mapping[str, Answers]

    @property
    def federated(self) -> Answers:
        """The federated answers on the test patients of all hospitals."""
        return self.together[FEDERATED]

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        return self.contents.classes

    @property
    def several(self) -> bool:
        """Whether there is more than one question to answer."""
        return len(self.federated.asked) > 1

    def at(self, way: str, site: str) -> Answers | None:
        """Return what one way of answering said of one hospital's test patients."""
        return answers_at(self.contents.scores, way, (site,), "test", self.multi_label)


def auroc_of(answers: Answers, classes: Sequence[int] = ()) -> Interval:
    """Return the AUROC by patients; of several classes the mean of those that are defined."""
    chosen = list(classes or answers.asked)
    sums = placement_sums_of_scores(
        answers.scores[:, chosen], answers.labels[:, chosen], answers.patients
    )
    return auroc_interval(sums, class_weights(sums))


def operation_of(answers: Answers, k: int) -> Operation:
    """Return the shares of the answers that the model gives by itself, for one class."""
    return operate(answer_sums(answers.found[:, k], answers.labels[:, k], answers.patients))


def discrimination_tables(run: Tested) -> list[Table]:
    """Return areas by hospital and by class, the confusion matrix, and shares by hospital."""
    tables = [_areas(run)]
    if run.several:
        tables.append(_by_class(run))
    tables.append(_counts_of_labels(run) if run.multi_label else _confusion(run))
    if not run.several:
        tables.append(_answers_by_site(run))
    return tables


def _areas(run: Tested) -> Table:
    ways = [way for way in WAYS if way in run.together]
    rows = []
    for site in (_ALL, *run.contents.sites):
        cells = []
        for way in ways:
            answers = run.together[way] if site == _ALL else run.at(way, site)
            cells.append(Cell("–") if answers is None else interval_cell(auroc_of(answers)))
        here = run.federated if site == _ALL else run.at(FEDERATED, site)
        note = "mean over classes" if run.several else ""
        precision = None if here is None else _precision(here, here.asked)
        cells.append(Cell("–") if precision is None else interval_cell(precision, note))
        cells.append(Cell("0") if here is None else _cases_cell(here))
        rows.append((site, tuple(cells)))
    mean = ", mean over classes" if run.several else ""
    caption = f"AUROC and average precision{mean} on test patients, with 95 % intervals."
    columns = (*(f"AUROC, {WAY_TITLES[way]}" for way in ways), "precision, federated", "tested")
    return Table(caption, "hospital", columns, tuple(rows))


def _cases_cell(answers: Answers) -> Cell:
    people = "patient" if answers.people == 1 else "patients"
    return Cell(str(answers.people), f"{people}, {len(answers)} exam.")


def _precision(answers: Answers, classes: Sequence[int]) -> Interval:
    """Return the average precision; of several classes their mean, without an interval.

    Where all examinations are of a class every order is right: nothing is measured.
    """
    scores, labels = answers.scores, answers.labels
    known = [k for k in classes if labels[:, k].any() and not labels[:, k].all()]
    if len(known) == 1:
        (k,) = known
        patients = answers.patients
        return average_precision_interval(scores[:, k], labels[:, k], patients, draws=_DRAWS)
    each = [average_precision(scores[:, k], labels[:, k]) for k in known]
    return unknown_interval(float(np.mean(each)) if each else math.nan, answers.people)


def _by_class(run: Tested) -> Table:
    rows = []
    for k in run.federated.asked:
        found = operation_of(run.federated, k)
        cells = [
            interval_cell(auroc_of(run.federated, (k,))),
            interval_cell(_precision(run.federated, (k,))),
            interval_cell(found.sensitivity),
            interval_cell(found.specificity),
            Cell(str(int(run.federated.labels[:, k].sum())), f"of {len(run.federated)}"),
        ]
        rows.append((run.names[k], tuple(cells)))
    answered = "every label from 0.5 on" if run.multi_label else "the most probable class"
    caption = (
        "Each class against all others: the federated model on the test patients of all hospitals, "
        f"with 95 % intervals. Sensitivity and specificity: answered by {answered}."
    )
    columns = ("AUROC", "average precision", "sensitivity", "specificity", "examinations")
    return Table(caption, "class", columns, tuple(rows))


def _confusion(run: Tested) -> Table:
    answers, names = run.federated, run.names
    counts = answers.labels.T.astype(int) @ answers.found.astype(int)
    rows = []
    for k, name in enumerate(names):
        total = int(counts[k].sum())
        cells = tuple(
            Cell(str(count), f"{100 * count / total:.0f} %", round(100 * count / total), j == k)
            if total
            else Cell("–")
            for j, count in enumerate(counts[k])
        )
        rows.append((name, cells))
    caption = (
        "Confusion matrix: what test examinations are (rows) and what the federated model answers "
        "(columns), with the share of the row; outlined: right."
    )
    return Table(caption, "is", tuple(f"answered {name}" for name in names), tuple(rows), "heat")


def _counts_of_labels(run: Tested) -> Table:
    answers = run.federated
    rows = []
    for k, name in enumerate(run.names):
        truth, found = answers.labels[:, k], answers.found[:, k]
        counts = [truth & found, truth & ~found, ~truth & found, ~truth & ~found]
        totals = [truth.sum(), truth.sum(), (~truth).sum(), (~truth).sum()]
        cells = tuple(
            Cell(str(int(one.sum())), f"{100 * one.sum() / total:.0f} %" if total else "")
            for one, total in zip(counts, totals, strict=True)
        )
        rows.append((name, cells))
    caption = (
        "Each label of the test examinations: what the federated model answers, a label from 0.5 "
        "on, with the share of those who have it or have it not."
    )
    columns = ("has it, found", "has it, missed", "has it not, reported", "has it not, left alone")
    return Table(caption, "label", columns, tuple(rows))


def _answers_by_site(run: Tested) -> Table:
    (k,) = run.federated.asked
    rows = []
    for site in (_ALL, *run.contents.sites):
        answers = run.federated if site == _ALL else run.at(FEDERATED, site)
        if answers is None:
            continue
        found = operation_of(answers, k)
        shares = (found.sensitivity, found.specificity, found.ppv, found.npv)
        cells = [interval_cell(share) for share in shares]
        cells.append(Cell(str(int(answers.labels[:, k].sum())), f"of {len(answers)}"))
        rows.append((site, tuple(cells)))
    name = run.names[k]
    caption = (
        "Answered by the more probable class: the federated model on test patients, with 95 % "
        f"intervals. PPV: share of those reported who have {name}; NPV: of the others who have not."
    )
    columns = ("sensitivity", "specificity", "PPV", "NPV", f"with {name}")
    return Table(caption, "hospital", columns, tuple(rows))
