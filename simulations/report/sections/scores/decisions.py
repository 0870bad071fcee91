"""What changes if somebody acts on the model: thresholds, net benefit, predictive values, sets."""

import math
from collections.abc import Iterator, Sequence

from wardround.common.html.charts.figure import Figure
from wardround.common.statistics.decisions.operating_points import predictive_values
from wardround.simulations.evidence.acting import (
    COVERAGE,
    Acted,
    SetsAt,
    measure_all_sets,
    worth_of,
)
from wardround.simulations.evidence.answers import WAYS, answers_at
from wardround.simulations.evidence.released import release_of_run
from wardround.simulations.report.charts.net_benefit import curve_of, draw_gains, draw_net_benefit
from wardround.simulations.report.charts.printed import (
    out_of_100,
    percent,
)
from wardround.simulations.report.charts.score_curves import WAY_LOOKS, WAY_TITLES, looks_of
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.scores.decisions_tables import (
    Acting,
    calibrated_answers,
    operating_table,
    predictive_table,
    probability,
    sets_table,
)
from wardround.simulations.report.sections.section import Section
from wardround.simulations.run_files.folder import FEDERATED


def decisions_section(contents: RunContents) -> Section | None:
    """Return the section; None where the run kept no scores."""
    study = contents.study
    if study is None or not contents.scores:
        return None
    temperature = release_of_run(contents.scores, contents.sites, study).temperature
    test = calibrated_answers(contents, contents.sites, "test", temperature)
    if test is None:
        return None
    validation = calibrated_answers(contents, contents.sites, "validation", temperature)
    run = Acting(contents, study, temperature, test, validation)
    common, shrunk = (
        ((), ()) if study.data.multi_label else measure_all_sets(contents.scores, contents.sites)
    )
    tables = [operating_table(run), predictive_table(run), sets_table(common, shrunk)]
    return Section(
        "decisions",
        "What changes if we act on it?",
        (*_answer(run), *_sets_words(common, shrunk)),
        figures=tuple(figure for figure in (_figure(run),) if figure is not None),
        tables=tuple(table for table in tables if table is not None),
        notes=tuple(_notes(run)),
    )


def _answer(run: Acting) -> Iterator[str]:
    if not run.acted:
        yield (
            "No threshold can be told: it is chosen on validation patients, and there are none "
            "with and without the class. The decision curve below needs none."
        )
        return
    if len(run.test.asked) > 1:
        yield from _answer_of_many(run)
        return
    ((k, acted),) = run.acted.items()
    name, found = run.names[k], acted.operation
    chosen = (
        f"finds {percent(run.goal.wanted)} of the cases"
        if run.goal.aim == "sensitivity"
        else f"leaves {percent(run.goal.wanted)} of the others alone"
    )
    yield (
        f"Acting from a probability of {probability(acted.threshold)} on, which {chosen} on "
        f"validation patients, finds {out_of_100(found.sensitivity, f'test cases of {name}')} and "
        f"leaves alone {out_of_100(found.specificity, 'others')}."
    )
    yield (
        f"Of those it reports, {out_of_100(found.ppv)} have {name}; of those it does not report, "
        f"{out_of_100(found.npv)} have it not. That is where {percent(found.prevalence.value)} "
        "have it, as here."
    )
    yield from _elsewhere(run, k, acted)
    if 0 < acted.threshold < 1:
        yield _worth_words(run, k, acted.threshold)


def _elsewhere(run: Acting, k: int, acted: Acted) -> Iterator[str]:
    prevalence = run.study.evaluation.prevalence.get(run.names[k])
    if prevalence is None:
        return
    ppv, npv = predictive_values(acted.sums, prevalence)
    yield (
        f"Where {percent(prevalence)} have it, as the study says of its use, "
        f"{out_of_100(ppv, 'reported')} have it, and {out_of_100(npv, 'not reported')} have it not."
    )


def _worth_words(run: Acting, k: int, threshold: float) -> str:
    worth = worth_of(run.test, k, threshold)
    # Who acts on everybody gains where more than the threshold's share has it.
    other = "everybody" if run.test.labels[:, k].mean() > threshold else "nobody"
    sure = f" (95 % interval {100 * worth.low:.1f} to {100 * worth.high:.1f})".replace("-", "−")
    value = f"{100 * worth.value:.1f}".replace("-", "−")
    verdict = "which chance alone could explain"
    if worth.is_known and worth.low > 0:
        verdict = "so the model helps whoever acts there"
    if worth.is_known and worth.high < 0:
        verdict = "so the model does harm there: better act without it"
    return (
        f"Net benefit: in 100 examinations acting on the model is worth {value} cases found"
        f"{sure if worth.is_known else ''} more than acting on {other}, where one case found is "
        f"worth {(1 - threshold) / threshold:.2g} needless actions; {verdict}."
    )


def _answer_of_many(run: Acting) -> Iterator[str]:
    values = {k: acted.operation for k, acted in run.acted.items()}
    reached, other = (
        ("sensitivity", "specificity")
        if run.goal.aim == "sensitivity"
        else ("specificity", "sensitivity")
    )
    fair = {k: v for k, v in values.items() if not math.isnan(getattr(v, other).value)}
    if not fair:
        yield "What the thresholds give cannot be told: no class has test patients on both sides."
        return
    best = max(fair, key=lambda k: getattr(fair[k], other).value)
    worst = min(fair, key=lambda k: getattr(fair[k], other).value)
    yield (
        f"With a threshold for each class that reaches a {reached} of "
        f"{percent(run.goal.wanted)} on validation patients, the {other} on test patients is "
        f"between {percent(getattr(fair[worst], other).value)} ({run.names[worst]}) and "
        f"{percent(getattr(fair[best], other).value)} ({run.names[best]})."
    )
    missed = [
        run.names[k]
        for k, v in fair.items()
        if getattr(v, reached).is_known and getattr(v, reached).high < run.goal.wanted
    ]
    if missed:
        yield (
            f"The {reached} that was wanted is clearly missed on test patients for "
            f"{', '.join(missed)}: do not act on these thresholds there."
        )


def _figure(run: Acting) -> Figure | None:
    if len(run.test.asked) > 1:
        looks = looks_of([run.names[k] for k in run.test.asked])
        drawn = zip(run.test.asked, looks.items(), strict=True)
        named = [(name, curve_of(run.test, k), look) for k, (name, look) in drawn]
        return draw_gains(
            "What the federated model adds for each class, by the probability from which one acts. "
            "Above the dotted line it helps, below it does harm.",
            named,
        )
    (k,) = run.test.asked
    curves = [(WAY_TITLES[FEDERATED], curve_of(run.test, k), WAY_LOOKS[FEDERATED])]
    for way in WAYS[1:]:
        found = answers_at(run.contents.scores, way, run.contents.sites, "test", multi_label=False)
        if found is not None:
            curves.append((WAY_TITLES[way], curve_of(found, k), WAY_LOOKS[way]))
    return draw_net_benefit(
        f"Decision curve for {run.names[k]} on test patients: who finds a case worth many needless "
        "actions acts early, on the left. The highest line is the best way to decide; the dotted "
        "upright is the threshold of the table.",
        curves,
        run.thresholds[k],
    )


def _sets_words(common: Sequence[SetsAt], shrunk: Sequence[SetsAt]) -> Iterator[str]:
    known = [pair for pair in zip(common, shrunk, strict=True) if pair[0].covered.patients]
    if not known:
        return
    worst = min(known, key=lambda pair: pair[0].covered.value)
    lowest = min(known, key=lambda pair: pair[1].covered.value)[1]
    size = sum(one.mean_size for _, one in known) / len(known)
    yield (
        f"Sets of classes that shall hold the right one in {percent(COVERAGE)} of examinations: "
        f"with one threshold for all hospitals, the lowest is {worst[0].site} with "
        f"{out_of_100(worst[0].covered)}; with a threshold of each hospital's own in part, it is "
        f"{lowest.site} with {out_of_100(lowest.covered)}. A set has {size:.2f} classes "
        "on the mean; where it has several, the model leaves the question open."
    )


def _notes(run: Acting) -> Iterator[str]:
    if run.temperature is not None:
        yield (
            f"Probabilities of the federated model are those with the temperature "
            f"{run.temperature:.2f}, as wardround predict gives them."
        )
    yield (
        "Net benefit (Vickers and Elkin 2006): cases found less needless actions, an examination; "
        "whoever acts from 20 % on holds one case found worth four needless actions."
    )
    if not run.study.evaluation.prevalence:
        yield (
            "PPV and NPV change with how many people have it. State that share as "
            "evaluation.prevalence in the study file to see them for where the model would be used."
        )
    if run.study.data.multi_label:
        yield "Sets of classes are not made for labels of which several may apply."
