"""Whether the model tells those who have it from those who do not: ROC, PR, confusion matrices."""

import math
from collections.abc import Sequence

from wardround.common.html.charts.figure import Figure
from wardround.common.html.charts.looks import Look
from wardround.simulations.evidence.answers import OWN, WAYS, Answers, answers_at
from wardround.simulations.report.charts.printed import listed, out_of_100, plural
from wardround.simulations.report.charts.score_curves import (
    WAY_LOOKS,
    WAY_TITLES,
    draw_precision_recall,
    draw_roc,
    looks_of,
    precision_recall_of,
    roc_of,
)
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.scores.discrimination_tables import (
    Tested,
    auroc_of,
    discrimination_tables,
    operation_of,
)
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.wording import number
from wardround.simulations.run_files.folder import FEDERATED


def discrimination_section(contents: RunContents) -> Section | None:
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
    run = Tested(contents, multi_label, together)
    return Section(
        "discrimination",
        "Does it tell them apart?",
        tuple(_answer(run)),
        figures=tuple(figure for figure in _figures(run) if figure is not None),
        tables=tuple(discrimination_tables(run)),
        notes=tuple(_notes(run)),
    )


def _answer(run: Tested) -> list[str]:
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
    compared = f", compared with {listed(others)}" if others else ""
    sentences.append(f"That share is the AUROC: {number(area.value)}{compared}; a coin has 0.5.")
    sentences += _range_over_sites(run)
    sentences += _hardest_class(run) if run.several else _own_answer(run)
    return sentences


def _case_word(run: Tested) -> str:
    return "of a class" if run.several else f"with {run.names[run.federated.asked[0]]}"


def _range_over_sites(run: Tested) -> list[str]:
    values = {
        site: area.value
        for site in run.contents.sites
        if (answers := run.at(FEDERATED, site)) is not None
        and not math.isnan((area := auroc_of(answers)).value)
    }
    if len(values) < 2:
        return []
    low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    if number(values[low]) == number(values[high]):
        return [
            f"It is {number(values[low])} at each hospital that can tell; the table says how sure "
            "each is."
        ]
    return [
        f"By hospital it reaches from {number(values[low])} ({low}) to {number(values[high])} "
        f"({high}); the table says how sure each is."
    ]


def _hardest_class(run: Tested) -> list[str]:
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


def _own_answer(run: Tested) -> list[str]:
    (k,) = run.federated.asked
    found = operation_of(run.federated, k)
    return [
        "Answered by the more probable class, it finds "
        f"{out_of_100(found.sensitivity, f'test examinations with {run.names[k]}')} and leaves "
        f"alone {out_of_100(found.specificity, 'others')}. Another threshold changes both at once, "
        "along the curve."
    ]


def _figures(run: Tested) -> list[Figure | None]:
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


def _notes(run: Tested) -> list[str]:
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
