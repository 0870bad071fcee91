"""Should this hospital join? *yes*, *no* or *cannot be told*, its reason, and the model to use."""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from wardround.common.errors import InputError
from wardround.common.statistics.joining.worth_joining import FEWEST, LARGEST_COUNT, Gain, Word
from wardround.common.study.plans.contributions import MOST_SITES, why_no_contributions
from wardround.common.study.study import Study
from wardround.simulations.evidence.joining import Kind, SiteJoining, judge_sites
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.wording import metric_title, number, sentence_title, signed
from wardround.simulations.run_files.contributions import (
    CONTRIBUTIONS,
    ContributionRow,
    read_contributions,
)

_MODELS: Mapping[Kind, str] = {
    "own": "its own model",
    "global": "the federated model",
    "personalised": "its personalised model",
}
_WORDS: tuple[Word, ...] = ("yes", "no", "cannot be told")


@dataclass(frozen=True, slots=True)
class WorthJoining:
    """What a run says of joining.

    Attributes:
        sites: Every site whose own and federated models were tested, in the run's order.
        contributions: By site; empty where they were not told.
    """

    study: Study
    sites: tuple[SiteJoining, ...]
    contributions: Mapping[str, ContributionRow]


def read_worth_joining(contents: RunContents) -> WorthJoining | None:
    """Return what a run says of joining; None where no hospital can be compared.

    Raises:
        InputError: The table of contributions is damaged.
    """
    study = contents.study
    if study is None:
        return None
    sites = judge_sites({**contents.scores, **contents.masks}, contents.sites, study)
    if not sites:
        return None
    try:
        rows = read_contributions(contents.folder)
    except (ValueError, TypeError, KeyError, OSError, csv.Error):
        msg = (
            f"{contents.folder / CONTRIBUTIONS} is damaged or was written by another version of "
            "wardround: repeat the run, or remove the file."
        )
        raise InputError(msg) from None
    return WorthJoining(study, sites, {row.site: row for row in rows})


def worth_joining_section(contents: RunContents) -> Section | None:
    """Return the section; None where the run did not train each hospital's own model."""
    found = read_worth_joining(contents)
    if found is None:
        return None
    return Section(
        anchor="worth-joining",
        title="Should this hospital join?",
        answer=(
            headline(found),
            losses(found),
            *_sentences(found),
        ),
        tables=(_tabulate(found),),
        notes=_notes(found),
    )


def _sentences(found: WorthJoining) -> Iterator[str]:
    for one in found.sites:
        yield f"{one.site}: {reason(one, found.study)}{chosen_model(one)}"


def headline(found: WorthJoining) -> str:
    """Return one sentence: for whom yes, for whom no, and for whom it cannot be told."""
    by_word = {word: [s.site for s in found.sites if s.joining.word == word] for word in _WORDS}
    total = len(found.sites)
    for word, names in by_word.items():
        if len(names) == total and total > 1:
            said = {
                "yes": f"Joining is worth it for all {total} hospitals.",
                "no": f"Joining is worth it for none of the {total} hospitals.",
                "cannot be told": (
                    "For none of the hospitals can it be told whether joining is worth it."
                ),
            }
            return said[word]
    parts = []
    if by_word["yes"]:
        parts.append(f"is worth it for {_listed(by_word['yes'])}")
    if by_word["no"]:
        parts.append(f"is not worth it for {_listed(by_word['no'])}")
    if by_word["cannot be told"]:
        parts.append(f"cannot be judged for {_listed(by_word['cannot be told'])}")
    return f"Joining {'; it '.join(parts)}."


def losses(found: WorthJoining) -> str:
    """Return a sentence on the margin: where a loss beyond it is certain, or not ruled out."""
    margin = found.study.evaluation.margin
    certain = [one.site for one in found.sites if one.own.upper() < -margin]
    possible = [
        one.site for one in found.sites if one.own.lower() <= -margin and one.site not in certain
    ]
    unit = f"{_plain(margin)} {metric_title(found.study.metric)}"
    if certain:
        return f"The federated model loses more than {unit} for certain at {_listed(certain)}."
    if possible:
        return (
            f"A loss of {unit} (the margin) is certain nowhere, but not ruled out at "
            f"{_listed(possible)}."
        )
    return f"A loss of {unit} (the margin) or more is ruled out at every hospital."


def reason(one: SiteJoining, study: Study) -> str:
    """Return the word with its reason, a sentence without the hospital's name."""
    margin, metric = study.evaluation.margin, study.metric
    unit, least = metric_title(metric), _plain(margin)
    value = number(abs(one.own.value), metric)
    said = {
        "certain gain": f"it gains {value} {unit} over its own model, more than chance explains",
        "no loss of the margin": (
            f"it gained {value} {unit} ({_reach(one.own, metric)}), and a loss of {least} is "
            "ruled out"
        ),
        "certain loss": f"it loses {value} {unit} against its own model, more than chance explains",
        "loss in a part": f"for {one.joining.part} it loses more than {least} for certain",
        "ensemble is better": (
            "the mean answer of all hospitals' own models, which takes no rounds of training "
            f"together, is better by more than {least} for certain"
        ),
        "no gain of the margin": (
            f"it {'gained' if one.own.value > 0 else 'lost'} {value} {unit} "
            f"({_reach(one.own, metric)}), and a gain of {least} is ruled out"
        ),
        "too few patients": _too_few(one, least),
        "not measured": f"{unit} is not defined for its test patients",
    }[one.joining.reason]
    care = ""
    if one.one_class:
        care = (
            " Read it with care: all its test patients are of one class, so a constant answer is "
            "right there."
        )
    return f"{one.joining.word}: {said}.{care}"


def chosen_model(one: SiteJoining) -> str:
    """Return a sentence on the model that the validation patients choose; "" without them."""
    choice = one.choice
    if not choice.validation_patients:
        return ""
    patients = f"{choice.validation_patients} validation patient"
    chooses = "s choose" if choice.validation_patients > 1 else " chooses"
    return f" Its {patients}{chooses} {_MODELS[choice.kind]}."


def gain_cell(gain: Gain | None, metric: str) -> Cell:
    """Return a gain with its 90 % interval, whose ends are the two one-sided bounds."""
    if gain is None or math.isnan(gain.value):
        return Cell("–")
    if not gain.is_known or gain.error == 0:
        return Cell(signed(gain.value, metric))
    return Cell(signed(gain.value, metric), _ends(gain, metric))


def _ends(gain: Gain, metric: str) -> str:
    return f"{signed(gain.lower(), metric)} to {signed(gain.upper(), metric)}"


def _reach(gain: Gain, metric: str) -> str:
    """Return a gain's interval; whether it is chance is the first section's to say, in one way."""
    return f"90 % interval {_ends(gain, metric)}"


def as_rows(found: WorthJoining) -> list[dict[str, object]]:
    """Return a row a hospital of plain values, as ``--json`` prints them."""
    return [
        {
            "site": one.site,
            "word": one.joining.word,
            "reason": one.joining.reason,
            "sentence": reason(one, found.study),
            "patients": one.patients,
            "patients_needed": one.joining.patients_needed,
            "gain_over_own": _gain_row(one.own),
            "gain_over_ensemble": _gain_row(one.ensemble),
            "model": one.choice.kind if one.choice.validation_patients else None,
            "model_chosen_on": one.choice.validation_patients,
            "model_test": one.choice.test,
            "model_gain": one.choice.gain.value,
            "contribution": _contribution_row(found.contributions.get(one.site)),
        }
        for one in found.sites
    ]


def _gain_row(gain: Gain | None) -> dict[str, float] | None:
    if gain is None:
        return None
    return {"value": gain.value, "lower_90": gain.lower(), "upper_90": gain.upper()}


def _contribution_row(row: ContributionRow | None) -> dict[str, object] | None:
    if row is None:
        return None
    return {
        "shapley": row.shapley,
        "error": row.error,
        "leave_one_out": row.leave_one_out,
        "rounds": row.rounds,
    }


def _too_few(one: SiteJoining, margin: str) -> str:
    patients = f"{one.patients} test patient{'' if one.patients == 1 else 's'}"
    if one.patients < FEWEST:
        return f"{patients} cannot show how patients differ"
    needed = one.joining.patients_needed
    said = f"with {patients} neither a loss nor a gain of {margin} is ruled out"
    if needed is None:
        return said
    if needed >= LARGEST_COUNT:
        return f"{said}; more patients than there are would not tell"
    return f"{said}; it would take about {_rounded(needed)}"


def _rounded(count: int) -> str:
    """Return a count with two digits: it is an estimate."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // unit) * unit:,}"


def _plain(margin: float) -> str:
    return f"{margin:g}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _tabulate(found: WorthJoining) -> Table:
    metric = found.study.metric
    columns = ["join?", "gain over its own model", "gain over the ensemble", "model chosen"]
    if all(one.ensemble is None for one in found.sites):
        columns.remove("gain over the ensemble")
    if found.contributions:
        columns += ["its contribution", "loss without it"]
    cells = {
        one.site: {
            "join?": Cell(one.joining.word, f"{one.patients} test patients"),
            "gain over its own model": gain_cell(one.own, metric),
            "gain over the ensemble": gain_cell(one.ensemble, metric),
            "model chosen": _model_cell(one, metric),
            **_contribution_cells(found.contributions.get(one.site), metric),
        }
        for one in found.sites
    }
    caption = (
        f"{sentence_title(metric)} on each hospital's test patients: gains of the federated model "
        "with 90% intervals, and the model that its validation patients choose."
    )
    rows = tuple((site, tuple(row[name] for name in columns)) for site, row in cells.items())
    return Table(caption, "hospital", tuple(columns), rows)


def _model_cell(one: SiteJoining, metric: str) -> Cell:
    choice = one.choice
    if not choice.validation_patients:
        return Cell("–", "no validation patients to choose by")
    note = f"test {number(choice.test, metric)}"
    if choice.kind != "own":
        note += f", {signed(choice.gain.value, metric)} over its own"
    return Cell(_MODELS[choice.kind], note)


def _contribution_cells(row: ContributionRow | None, metric: str) -> dict[str, Cell]:
    if row is None:
        return {"its contribution": Cell("–"), "loss without it": Cell("–")}
    error = f"± {number(row.error, metric)}" if row.error > 0 else ""
    return {
        "its contribution": Cell(signed(row.shapley, metric), error),
        "loss without it": Cell(signed(row.leave_one_out, metric)),
    }


def _notes(found: WorthJoining) -> tuple[str, ...]:
    margin, unit = _plain(found.study.evaluation.margin), metric_title(found.study.metric)
    notes = [
        f"Yes: a loss of the margin ({margin} {unit}, evaluation.margin) or more is ruled out, and "
        "a gain of it is not. No: a gain of the margin is ruled out, or a loss is certain, overall "
        "or in a class, or the mean answer of all hospitals' own models is better by the margin. "
        "Ruled out means by a test at 5%, one-sided; the intervals are therefore 90% ones. All "
        "compare two models on the same patients, and count patients, not images. They are made "
        "for what is certain about a margin, and are wider where a class has few patients than the "
        "intervals of whether a hospital gained at all.",
        "The model is chosen on validation patients and its value is that on test patients, who "
        "had no part in the choice. A choice by few patients is often a wrong one, and need not "
        "agree with the word, which is of the test patients.",
        "Each hospital is judged for itself: of many hospitals some words are wrong by chance.",
    ]
    rows = list(found.contributions.values())
    if not rows:
        why = why_no_contributions(found.study) or "the run kept no updates of its rounds"
        if len(found.sites) > MOST_SITES:
            why = f"with more than {MOST_SITES} hospitals one's share drowns in its error"
        notes.append(f"What each hospital contributed is not told: {why}.")
        return tuple(notes)
    first = rows[0]
    how = "all subsets of hospitals" if first.method == "exact" else "drawn orders of joining"
    notes.append(
        f"Contribution: the hospital's share of the improvement from {_value(first.start, found)} "
        f"to {_value(first.end, found)} on all {first.patients} {first.split} patients in "
        f"{first.rounds} rounds, by Shapley's rule over {how}; all shares add up to it. Loss "
        "without it: how much worse the model is if the same rounds are aggregated without the "
        "hospital. Nothing was trained anew, so both are estimates; neither says that a hospital "
        "should be paid or left out."
    )
    return tuple(notes)


def _value(value: float, found: WorthJoining) -> str:
    return number(value, found.study.metric)
