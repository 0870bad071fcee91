"""Whether the model tells those who have it from those who do not: ROC, PR, confusion matrices."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wardround.common.html.charts.figure import Figure
from wardround.common.html.charts.looks import Look
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
from wardround.simulations.evidence.answers import OWN, WAYS, Answers, answers_at
from wardround.simulations.report.charts.printed import interval_cell, listed, out_of_100, plural
from wardround.simulations.report.charts.score_curves import (
    WAY_LOOKS,
    WAY_TITLES,
    draw_precision_recall,
    draw_roc,
    looks_of,
    precision_recall_of,
    roc_of,
)
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.wording import number
from wardround.simulations.run_files.folder import FEDERATED

_DRAWS = 400  # of patients, for the interval of an average precision
_ALL = "all hospitals"


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """What the section is made from: the test answers over all hospitals, and of each."""

    contents: RunContents
    multi_label: bool
    together: Mapping[str, Answers]

    @property
    def federated(self) -> Answers:
        return self.together[FEDERATED]

    @property
    def names(self) -> tuple[str, ...]:
        return self.contents.classes

    @property
    def several(self) -> bool:
        """Whether there is more than one question to answer."""
        return len(self.federated.asked) > 1

    def at(self, way: str, site: str) -> Answers | None:
        return answers_at(self.contents.scores, way, (site,), "test", self.multi_label)


def make_discrimination(contents: RunContents) -> Section | None:
    """Return the section; None where the run kept no scores."""
    if contents.study is None or not contents.scores:
        return None
    multi_label = contents.study.data.multi_label
    found = {
        way: answers_at(contents.scores, way, contents.sites, "test", multi_label) for way in WAYS
    }
    together = {way: answers for way, answers in found.items() if answers is not None}
    if FEDERATED not in together:
        return None
    run = _Run(contents, multi_label, together)
    return Section(
        "discrimination",
        "Does it tell them apart?",
        tuple(_answer(run)),
        figures=tuple(figure for figure in _figures(run) if figure is not None),
        tables=tuple(_tables(run)),
        notes=tuple(_notes(run)),
    )


def auroc_of(answers: Answers, classes: Sequence[int] = ()) -> Interval:
    """Return the AUROC by patients; of several classes the mean of those that are defined."""
    chosen = list(classes or answers.asked)
    sums = placement_sums_of_scores(
        answers.scores[:, chosen], answers.labels[:, chosen], answers.patients
    )
    return auroc_interval(sums, class_weights(sums))


def _answer(run: _Run) -> list[str]:
    area, one = auroc_of(run.federated), _case_word(run)
    if math.isnan(area.value):
        return ["This cannot be told: the test patients all have the same class."]
    over = ", on the mean over the classes" if run.several else ""
    sentences = [
        f"Of two test examinations, one {one} and one not, the federated model gives the higher "
        f"score to the right one in {out_of_100(area, 'such pairs')}{over}."
    ]
    others = [
        f"{WAY_TITLES[way]} {number(auroc_of(run.together[way]).value)}"
        for way in WAYS[1:]
        if way in run.together
    ]
    compared = f", beside {listed(others)}" if others else ""
    sentences.append(f"That share is the AUROC: {number(area.value)}{compared}; a coin has 0.5.")
    sentences += _range_over_sites(run)
    sentences += _hardest_class(run) if run.several else _own_answer(run)
    return sentences


def _case_word(run: _Run) -> str:
    return "of a class" if run.several else f"with {run.names[run.federated.asked[0]]}"


def _range_over_sites(run: _Run) -> list[str]:
    values = {
        site: area.value
        for site in run.contents.sites
        if (answers := run.at(FEDERATED, site)) is not None
        and not math.isnan((area := auroc_of(answers)).value)
    }
    if len(values) < 2:
        return []
    low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    return [
        f"By hospital it reaches from {number(values[low])} ({low}) to {number(values[high])} "
        f"({high}); the table says how sure each is."
    ]


def _hardest_class(run: _Run) -> list[str]:
    areas = {k: auroc_of(run.federated, (k,)) for k in run.federated.asked}
    known = {k: area for k, area in areas.items() if not math.isnan(area.value)}
    if not known:
        return []
    worst = min(known, key=lambda k: known[k].value)
    cases = int(run.federated.labels[:, worst].sum())
    return [
        f"It finds {run.names[worst]} hardest to tell: {number(known[worst].value)}, from "
        f"{plural(cases, 'test examination')} of it."
    ]


def _own_answer(run: _Run) -> list[str]:
    (k,) = run.federated.asked
    found = _operation(run.federated, k)
    return [
        "Answered by the more probable class, it finds "
        f"{out_of_100(found.sensitivity, f'test examinations with {run.names[k]}')} and leaves "
        f"alone {out_of_100(found.specificity, 'others')}. Another threshold changes both at once, "
        "along the curve."
    ]


def _operation(answers: Answers, k: int) -> Operation:
    return operate(answer_sums(answers.found[:, k], answers.labels[:, k], answers.patients))


def _figures(run: _Run) -> list[Figure | None]:
    figures: list[Figure | None] = []
    mean = "the mean over classes of each curve" if run.several else ""
    of = mean or f"of {run.names[run.federated.asked[0]]}"
    named = [
        (run.together[way], WAY_TITLES[way], WAY_LOOKS[way]) for way in WAYS if way in run.together
    ]
    figures += _both(named, f"on the test patients of all hospitals, {of}.")
    if run.several:
        looks = looks_of([run.names[k] for k in run.federated.asked])
        drawn = zip(run.federated.asked, looks.items(), strict=True)
        curves = [(k, name, look) for k, (name, look) in drawn]
        what = "of the federated model by class, each against all others."
        figures.append(
            draw_roc(
                f"ROC {what}", [c for k, n, w in curves if (c := roc_of(run.federated, n, w, (k,)))]
            )
        )
        figures.append(
            draw_precision_recall(
                f"Precision and recall {what}",
                [c for k, n, w in curves if (c := precision_recall_of(run.federated, n, w, (k,)))],
            )
        )
    here = [
        (answers, site, look)
        for site, look in looks_of(run.contents.sites).items()
        if (answers := run.at(FEDERATED, site)) is not None
    ]
    if len(here) > 1:
        figures += _both(here, f"of the federated model at each hospital, {of}.")
    return figures


def _both(named: Sequence[tuple[Answers, str, Look]], what: str) -> list[Figure | None]:
    rocs = [c for answers, name, look in named if (c := roc_of(answers, name, look))]
    precisions = [
        c for answers, name, look in named if (c := precision_recall_of(answers, name, look))
    ]
    return [
        draw_roc(f"ROC {what}", rocs),
        draw_precision_recall(f"Precision and recall {what}", precisions),
    ]


def _tables(run: _Run) -> list[Table]:
    tables = [_areas(run)]
    if run.several:
        tables.append(_by_class(run))
    tables.append(_counts_of_labels(run) if run.multi_label else _confusion(run))
    if not run.several:
        tables.append(_answers_by_site(run))
    return tables


def _areas(run: _Run) -> Table:
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
    return Cell(str(answers.people), f"patients, {len(answers)} exam.")


def _precision(answers: Answers, classes: Sequence[int]) -> Interval:
    """Return the average precision; of several classes their mean, without an interval."""
    scores, labels = answers.scores, answers.labels
    known = [k for k in classes if labels[:, k].any()]
    if len(known) == 1:
        (k,) = known
        patients = answers.patients
        return average_precision_interval(scores[:, k], labels[:, k], patients, draws=_DRAWS)
    each = [average_precision(scores[:, k], labels[:, k]) for k in known]
    return unknown_interval(float(np.mean(each)) if each else math.nan, answers.people)


def _by_class(run: _Run) -> Table:
    rows = []
    for k in run.federated.asked:
        found = _operation(run.federated, k)
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


def _confusion(run: _Run) -> Table:
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


def _counts_of_labels(run: _Run) -> Table:
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


def _answers_by_site(run: _Run) -> Table:
    (k,) = run.federated.asked
    rows = []
    for site in (_ALL, *run.contents.sites):
        answers = run.federated if site == _ALL else run.at(FEDERATED, site)
        if answers is None:
            continue
        found = _operation(answers, k)
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


def _notes(run: _Run) -> list[str]:
    notes = [
        "Intervals count patients, not images: all images of a patient are kept together "
        "(Obuchowski 1997; a patient bootstrap for average precision)."
    ]
    if OWN in run.together and len(run.contents.sites) > 1:
        notes.append(
            "Own data alone, over all hospitals: each hospital's examinations are answered by its "
            "own model. Scores of several models are then compared with each other, which they "
            "were never meant for: look at the hospitals one by one."
        )
    return notes
