"""Does it work where it was not trained? Each hospital left out of training once, and tested on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from wardround.common.files.tables import read_kept_table
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study
from wardround.simulations.evidence.generalisation import (
    Expectation,
    Spread,
    expectation,
    spreads,
)
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.wording import metric_title, number, sentence_title, signed
from wardround.simulations.run_files.folder import FEDERATED, POOLED
from wardround.simulations.run_files.series import (
    CALIBRATION,
    LEFT_OUT,
    LEFT_OUT_EVERYBODY,
    MEASURED,
    OWN,
    TAKING_PART,
    MeasuredRow,
)

_MODELS = (OWN, FEDERATED, POOLED, LEFT_OUT, LEFT_OUT_EVERYBODY, TAKING_PART)
_TITLES = {
    OWN: "alone",
    FEDERATED: "federated",
    POOLED: "pooled",
    LEFT_OUT: "left out",
    LEFT_OUT_EVERYBODY: "left out, all patients",
    TAKING_PART: "gain of taking part",
}
_FAR_OFF = 0.1  # from which on a calibration error is worth a sentence
_NOTE = (
    "Alone: trained on the hospital's own data. Federated: by all hospitals together. Pooled: on "
    "all data in one place. Left out: by the other hospitals. No patient of the hospital took "
    "part in any training or validation, or in the choice of the round or of a threshold. All "
    "columns but one are of the same test patients; as none of its patients was trained on, the "
    "model is also tested on all of them. Below each value its 95 % interval over patients. The "
    "hospitals are few: how much they differ says more about yet another one than any interval."
)
_SCALED = (
    "Clinical values are scaled by each hospital's own training patients, also at the hospital "
    "that took no part: its values are used so, its labels are not."
)


def generalisation_section(contents: RunContents) -> Section | None:
    """Return the part on hospitals that took no part; None where none was left out."""
    rows = read_kept_table(contents.folder / MEASURED, MeasuredRow)
    return None if contents.study is None else section_of(rows, contents.study)


def section_of(rows: Sequence[MeasuredRow], study: Study) -> Section | None:
    """Return the part of a series' rows, of one seed or several."""
    measured = list(dict.fromkeys(row.metric for row in rows if row.model == LEFT_OUT))
    metrics = [name for name in measured if name in METRICS]
    expected = [found for name in metrics if (found := expectation(rows, name)) is not None]
    if not expected:
        return None
    held = spreads(rows)
    shown = [*metrics, *([CALIBRATION] if CALIBRATION in measured else [])]
    notes = [_NOTE]
    if study.data.covariate_scaling == "site" and study.data.covariates:
        notes.append(_SCALED)
    if max(one.seeds for one in held) > 1:
        notes.append("Values and ends of intervals are means over the seeds.")
    return Section(
        anchor="generalisation",
        title="Does it work where it was not trained?",
        answer=(headline(expected[0]), *_details(expected)),
        tables=tuple(_table(name, held) for name in shown),
        notes=tuple(notes),
    )


def headline(expected: Expectation) -> str:
    """Return what a clinician of yet another hospital may expect, in a sentence."""
    metric = expected.metric
    title, value = metric_title(metric), number(expected.value, metric)
    between = f"{number(expected.low, metric)} to {number(expected.high, metric)}"
    return (
        f"At a hospital that took no part, expect {_article(title)} {title} of about {value}: it "
        f"was {between} at the {expected.sites} hospitals that were left out in turn, the worst at "
        f"{expected.worst}."
    )


def _details(expected: Sequence[Expectation]) -> list[str]:
    first, said = expected[0], []
    if not math.isnan(first.taking_part):
        test, taking = (number(v, first.metric) for v in (first.test_value, first.taking_part))
        said.append(
            f"On their test patients alone it was {test} without these hospitals, and {taking} "
            "where they took part."
        )
    for other in expected[1:]:
        title = metric_title(other.metric)
        low, high = number(other.low, other.metric), number(other.high, other.metric)
        said.append(
            f"The {title} to expect is {number(other.value, other.metric)} ({low} to {high}, the "
            f"worst at {other.worst})."
        )
    if first.gained:
        said.append(
            f"Taking part itself clearly helps {', '.join(first.gained)}: on the same patients the "
            f"{metric_title(first.metric)} is higher with it than without it."
        )
    else:
        said.append("At no hospital is the gain of taking part itself beyond chance.")
    if first.calibration >= _FAR_OFF:
        said.append(
            f"Do not take its probabilities as they are: at {first.calibration_site} they were off "
            f"by {number(first.calibration)} on average (calibration error). A new hospital should "
            "calibrate the model on patients of its own first."
        )
    return said


def _table(metric: str, found: Sequence[Spread]) -> Table:
    held = {(one.site, one.model): one for one in found if one.metric == metric}
    models = [name for name in _MODELS if any(model == name for _, model in held)]
    sites = list(dict.fromkeys(site for site, _ in held if site))
    rows = [(site, tuple(_cell(held.get((site, m)), m) for m in models)) for site in sites]
    if len(sites) > 1:
        rows.append(("mean over hospitals", tuple(_mean_cell(held, m, sites) for m in models)))
    title = "Calibration error (ECE), lower is better" if metric == CALIBRATION else None
    caption = f"{title or sentence_title(metric)}, by hospital and by who trained the model."
    return Table(caption, "hospital", tuple(_TITLES[name] for name in models), tuple(rows))


def _mean_cell(held: Mapping[tuple[str, str], Spread], model: str, sites: Sequence[str]) -> Cell:
    known = [one for site in sites if (one := held.get((site, model))) is not None]
    defined = sum(not math.isnan(one.mean) for one in known)
    cell = _cell(held.get(("", model)), model)
    return cell if defined == len(sites) else replace(cell, note=f"of {defined}")


def _cell(one: Spread | None, model: str) -> Cell:
    if one is None:
        return Cell("–")
    shown = signed if model == TAKING_PART else number
    note = ""
    if not math.isnan(one.interval[0]):
        low, high = (number(end, one.metric) for end in one.interval)
        note = f"{low} to {high}"
    if model == LEFT_OUT_EVERYBODY and one.site:
        note = f"{note}{'; ' if note else ''}{one.patients} patients"
    return Cell(shown(one.mean, one.metric), note, marked=model == LEFT_OUT)


def _article(word: str) -> str:
    return "an" if word[0].lower() in "aeiou" or word.startswith("F1") else "a"
