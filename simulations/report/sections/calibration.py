"""Whether a probability of the model means what it says, and whether a temperature mends it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wardround.common.statistics.decisions.calibration import bin_scores, calibration_error
from wardround.common.statistics.decisions.recalibration import with_platt, with_temperature
from wardround.common.statistics.interval import Interval
from wardround.simulations.evidence.answers import WAYS, Answers, answers_at, parts_at
from wardround.simulations.evidence.calibrated import Temperature, find_platt, find_temperature
from wardround.simulations.evidence.statements import Statements, brier_of, statements_of
from wardround.simulations.report.charts.printed import (
    interval_cell,
    out_of_100,
    percent,
    plural,
)
from wardround.simulations.report.charts.reliability import (
    FEWEST_DRAWN,
    draw_reliability,
    draw_said,
)
from wardround.simulations.report.charts.score_curves import WAY_TITLES
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.wording import number
from wardround.simulations.run_files.folder import FEDERATED

_FEWEST = 10  # statements for which a share is worth a sentence
_WINDOW = 0.05  # around the probability that the sentence is about
_SHIFTED = 0.05  # a difference in prevalence that a temperature is misled by
_ALL = "all hospitals"


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    contents: RunContents
    test: Answers
    validation: Answers | None
    temperature: Temperature

    @property
    def cooled(self) -> Answers | None:
        """The test answers with the fitted temperature; None where none could be fitted."""
        fitted = self.temperature.fitted
        if math.isnan(fitted):
            return None
        scores = with_temperature(self.test.scores, fitted, self.test.multi_label)
        return self.test.with_scores(scores)

    def at(self, site: str) -> Answers | None:
        """The answers of one hospital."""
        multi_label = self.test.multi_label
        return answers_at(self.contents.scores, FEDERATED, (site,), "test", multi_label)


def make_calibration(contents: RunContents) -> Section | None:
    """Return the section; None where the run kept no scores."""
    if contents.study is None or not contents.scores:
        return None
    multi_label = contents.study.data.multi_label
    test, validation = (
        answers_at(contents.scores, FEDERATED, contents.sites, split, multi_label)
        for split in ("test", "validation")
    )
    if test is None:
        return None
    parts = list(parts_at(contents.scores, FEDERATED, contents.sites, "validation"))
    run = _Run(contents, test, validation, find_temperature(parts, multi_label))
    named = [("as it is", statements_of(test))]
    if run.cooled is not None:
        named.append((f"with temperature {run.temperature.fitted:.2f}", statements_of(run.cooled)))
    what = _what_is_stated(run)
    figures = (
        draw_reliability(
            f"What the federated model says of test examinations ({what}) and how often it is so; "
            "upright: 95 % intervals. Above the dotted line it is too cautious, below too sure. "
            f"Tenths with fewer than {FEWEST_DRAWN} statements are in the table alone.",
            named,
        ),
        draw_said(f"How often the federated model says so much, as it is ({what}).", named[0][1]),
    )
    return Section(
        "calibration",
        "Does 80 % mean 80 %?",
        tuple(_answer(run)),
        figures=tuple(figure for figure in figures if figure is not None),
        tables=tuple(_tables(run)),
        notes=tuple(_notes(run)),
    )


def _what_is_stated(run: _Run) -> str:
    if run.test.multi_label:
        return "every label"
    names = run.contents.classes
    return f"that it is {names[1]}" if len(names) == 2 else "its most probable class"


def _answer(run: _Run) -> list[str]:
    statements = statements_of(run.test)
    sentences = [_means(statements), _in_the_large(run, statements), _mended(run)]
    if run.cooled is not None and (shift := _shift(run)):
        sentences.append(shift)
    return sentences


def _means(statements: Statements) -> str:
    """Say what a probability of 80 % means, or of another one that is often said."""
    windows = [(p, statements.between(p - _WINDOW, p + _WINDOW)) for p in (0.8, 0.9, 0.7, 0.6, 0.2)]
    level, there = next((w for w in windows if len(w[1]) >= _FEWEST), windows[0])
    if len(there) < _FEWEST:
        return (
            "What it means when the model says 80 % cannot be told: it says so of "
            f"{plural(len(there), 'test examination')}."
        )
    share, said = there.share, float(there.said.mean())
    word = "about as often as it says"
    if share.is_known and not share.low <= said <= share.high:
        word = "less often than it says" if share.high < said else "more often than it says"
    return (
        f"When the federated model says about {percent(level)}, it is so in {out_of_100(share)}: "
        f"{word}. That is {plural(len(there), 'statement')} on test patients."
    )


def _in_the_large(run: _Run, statements: Statements) -> str:
    share, said = statements.share, float(statements.said.mean())
    if not share.is_known:
        return ""
    sure = "it says about as much as is so"
    if not share.low <= said <= share.high:
        sure = "it says too little" if said < share.low else "it says too much"
    return (
        f"On the mean it says {percent(said)} ({_what_is_stated(run)}), and it is so in "
        f"{out_of_100(share)}: {sure}. Its expected calibration error is "
        f"{number(statements.error)}; chance alone gives a calibrated model "
        f"{number(statements.chance_error)} with as many statements."
    )


def _mended(run: _Run) -> str:
    temperature, cooled = run.temperature, run.cooled
    if cooled is None:
        return f"It was not recalibrated: {temperature.reason}."
    before, after = statements_of(run.test).error, statements_of(cooled).error
    direction = "surer of itself" if temperature.fitted < 1 else "more cautious"
    word = "which helps" if after < before - 0.005 else "which changes little"
    if after > before + 0.005:
        word = "which makes it worse here"
    said = (
        f"A temperature of {temperature.fitted:.2f}, fitted on {temperature.patients} validation "
        f"patients, makes it {direction}: the error goes from {number(before)} to "
        f"{number(after)} on test patients, {word}."
    )
    if temperature.reason:
        return f"{said} It is not part of the model: {temperature.reason}."
    return f"{said} It is part of the model's folder, and wardround predict uses it."


def _shift(run: _Run) -> str:
    """Warn where the validation patients are not like the test patients."""
    if run.validation is None:
        return ""
    there, here = run.validation.labels.mean(axis=0), run.test.labels.mean(axis=0)
    asked = list(run.test.asked)
    k = asked[int(np.abs(there - here)[asked].argmax())]
    if abs(there[k] - here[k]) < _SHIFTED:
        return ""
    return (
        f"Read it with care: {percent(float(there[k]))} of the validation examinations are "
        f"{run.contents.classes[k]}, but {percent(float(here[k]))} of the test examinations. A "
        "temperature fitted where a class is as common as that can make things worse where it is "
        "not; no fit on other patients can know."
    )


def _tables(run: _Run) -> list[Table]:
    tables = [_ways(run), _sites(run)]
    if len(run.test.asked) > 1:
        tables.append(_classes(run))
    return tables


def _ways(run: _Run) -> Table:
    scores, sites = run.contents.scores, run.contents.sites
    multi_label = run.test.multi_label
    rows: list[tuple[str, Answers]] = [("federated, as it is", run.test)]
    if run.cooled is not None:
        rows.append((f"federated, temperature {run.temperature.fitted:.2f}", run.cooled))
    if len(run.test.asked) == 1 and (platt := _with_platt(run)) is not None:
        rows.append(("federated, Platt scaling", platt))
    for way in WAYS[1:]:
        answers = answers_at(scores, way, sites, "test", multi_label)
        if answers is not None:
            rows.append((WAY_TITLES[way], answers))
    shares = np.broadcast_to(run.test.labels.mean(axis=0), run.test.scores.shape)
    if not multi_label or len(run.test.asked) > 1:
        rows.append(("says how many have it, always", run.test.with_scores(shares)))
    brier = "Brier score"
    if len(run.test.asked) > 1:
        brier += ", mean over labels" if multi_label else ", sum over classes"
    caption = (
        "Calibration on the test patients of all hospitals; lower is better. ECE: mean distance of "
        "what is said and how often it is so, over ten bins. Brier: mean squared distance from the "
        "truth, with 95 % intervals; the last line is what a model scores that knows nothing of "
        "the patient."
    )
    columns = ("ECE", "by chance", brier, "says, on the mean", "is so")
    return Table(caption, "model", columns, tuple((name, _cells(a)) for name, a in rows))


def _cells(answers: Answers) -> tuple[Cell, ...]:
    statements = statements_of(answers)
    return (
        Cell(number(statements.error)),
        Cell(number(statements.chance_error)),
        interval_cell(brier_of(answers)),
        Cell(percent(float(statements.said.mean()))),
        _percent_cell(statements.share),
    )


def _percent_cell(share: Interval) -> Cell:
    note = f"{percent(share.low)}\u00a0to\u00a0{percent(share.high)}" if share.is_known else ""
    return Cell(percent(share.value), note)


def _with_platt(run: _Run) -> Answers | None:
    parts = list(parts_at(run.contents.scores, FEDERATED, run.contents.sites, "validation"))
    parts = [part for part in parts if len(part.scores)]
    if not parts:
        return None
    fit = find_platt(parts, 1)
    if not fit.is_usable:
        return None
    second = with_platt(run.test.scores[:, 1], *fit.values)
    return run.test.with_scores(np.stack([1 - second, second], axis=1))


def _sites(run: _Run) -> Table:
    rows = []
    for site in run.contents.sites:
        answers = run.at(site)
        if answers is not None:
            rows.append((site, (*_cells(answers), Cell(str(answers.people)))))
    caption = (
        "The federated model as it is, by hospital. Where it says much more or less than is so, "
        "the hospital's patients differ from those it learnt from."
    )
    columns = ("ECE", "by chance", "Brier score", "says, on the mean", "is so", "patients")
    return Table(caption, "hospital", columns, tuple(rows))


def _classes(run: _Run) -> Table:
    rows = []
    test, cooled = run.test, run.cooled
    errors = calibration_error(bin_scores(test.scores, test.labels))
    after = errors * math.nan
    if cooled is not None:
        after = calibration_error(bin_scores(cooled.scores, cooled.labels))
    for k in test.asked:
        here = Statements(test.scores[:, k], test.labels[:, k], test.patients)
        cells = (
            Cell(number(float(errors[k]))),
            Cell(number(float(after[k]))),
            Cell(number(here.chance_error)),
            Cell(percent(float(here.said.mean()))),
            _percent_cell(here.share),
        )
        rows.append((run.contents.classes[k], cells))
    caption = (
        "Each class against all others: the federated model on the test patients of all hospitals. "
        f"The mean over classes is the classwise ECE: {number(float(np.nanmean(errors)))} as it "
        "is."
    )
    columns = ("ECE, as it is", "with temperature", "by chance", "says, on the mean", "is so")
    return Table(caption, "class", columns, tuple(rows))


def _notes(run: _Run) -> Sequence[str]:
    notes = [
        "ECE has ten bins of equal width (Naeini et al. 2015; Guo et al. 2017). It is never 0: the "
        "column by chance is its mean where each statement comes true as often as it says."
    ]
    if run.cooled is not None:
        notes.append(
            "The temperature comes from each hospital's sums over its validation patients, a few "
            "numbers an exchange; it equals the one that would be fitted to all of them in one "
            "place. It changes no order of scores: the AUROC stays the same."
        )
    return notes
