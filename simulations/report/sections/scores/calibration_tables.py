"""The tables of calibration: models, hospitals and classes."""

import math
from dataclasses import dataclass

import numpy as np

from wardround.common.statistics.decisions.calibration import bin_scores, calibration_error
from wardround.common.statistics.decisions.recalibration import with_platt, with_temperature
from wardround.common.statistics.interval import Interval
from wardround.simulations.evidence.answers import WAYS, Answers, answers_at, parts_at
from wardround.simulations.evidence.calibrated import Temperature, find_platt
from wardround.simulations.evidence.intervals.statements import Statements, brier_of, statements_of
from wardround.simulations.report.charts.printed import (
    interval_cell,
    percent,
)
from wardround.simulations.report.charts.score_curves import WAY_TITLES
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.wording import number
from wardround.simulations.run_files.folder import FEDERATED


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """What the section on calibration is made from.

    Attributes:
        test: The federated answers on the test patients of all hospitals, as they are.
        validation: The same of validation patients; None without any.
    """

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


def calibration_tables(run: Calibrated) -> list[Table]:
    """Return the tables of ways to answer, of hospitals and, where there are several, classes."""
    tables = [_ways(run), _sites(run)]
    if len(run.test.asked) > 1:
        tables.append(_classes(run))
    return tables


def _ways(run: Calibrated) -> Table:
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


def _with_platt(run: Calibrated) -> Answers | None:
    parts = list(parts_at(run.contents.scores, FEDERATED, run.contents.sites, "validation"))
    parts = [part for part in parts if len(part.scores)]
    if not parts:
        return None
    fit = find_platt(parts, 1)
    if not fit.is_usable:
        return None
    second = with_platt(run.test.scores[:, 1], *fit.values)
    return run.test.with_scores(np.stack([1 - second, second], axis=1))


def _sites(run: Calibrated) -> Table:
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


def _classes(run: Calibrated) -> Table:
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
