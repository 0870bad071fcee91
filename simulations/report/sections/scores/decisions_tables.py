"""The tables of acting on a model: operating points, predictive values, sets of classes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from wardround.common.statistics.decisions.operating_points import predictive_values
from wardround.common.statistics.decisions.recalibration import with_temperature
from wardround.common.study.study import Study
from wardround.simulations.evidence.acting import (
    COVERAGE,
    Acted,
    Goal,
    SetsAt,
    act,
    goal_of,
    thresholds_of,
)
from wardround.simulations.evidence.answers import Answers, answers_at
from wardround.simulations.report.charts.printed import (
    interval_cell,
    percent,
)
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.run_files.folder import FEDERATED

_ALL = "all hospitals"


@dataclass(frozen=True)
class Acting:
    """What the section on decisions is made from.

    Attributes:
        temperature: That the answers have; None where they are as the network gives them.
        test: The federated answers on the test patients of all hospitals.
        validation: The same of validation patients; None without any.
    """

    contents: RunContents
    study: Study
    temperature: float | None
    test: Answers
    validation: Answers | None

    @property
    def goal(self) -> Goal:
        """What the threshold shall reach."""
        return goal_of(self.study)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes."""
        return self.study.data.classes

    @cached_property
    def thresholds(self) -> list[float]:
        """A threshold a class, chosen on validation patients; NaN for none."""
        return thresholds_of(self.validation, self.goal, len(self.names))

    @cached_property
    def acted(self) -> dict[int, Acted]:
        """What each class's threshold gives; classes without a threshold are absent."""
        known = [k for k in self.test.asked if not math.isnan(self.thresholds[k])]
        return {k: act(self.test, k, self.thresholds[k]) for k in known}

    def at(self, site: str) -> Answers | None:
        """The federated answers on one hospital's test patients."""
        return calibrated_answers(self.contents, (site,), "test", self.temperature)


def calibrated_answers(
    contents: RunContents, sites: Sequence[str], split: str, temperature: float | None
) -> Answers | None:
    """Return the federated answers with the temperature that the model's folder has."""
    multi_label = contents.study is not None and contents.study.data.multi_label
    found = answers_at(contents.scores, FEDERATED, sites, split, multi_label)
    if found is None or temperature is None:
        return found
    return found.with_scores(with_temperature(found.scores, temperature, multi_label))


def operating_table(run: Acting) -> Table | None:
    """Return what the thresholds give on test patients; None where there is none."""
    if not run.acted:
        return None
    if len(run.test.asked) > 1:
        rows = [(run.names[k], _cells(acted, acted.threshold)) for k, acted in run.acted.items()]
        corner = "class"
    else:
        ((k, acted),) = run.acted.items()
        rows, corner = [(_ALL, _cells(acted, acted.threshold))], "hospital"
        for site in run.contents.sites:
            answers = run.at(site)
            if answers is not None:
                rows.append((site, _cells(act(answers, k, acted.threshold), acted.threshold)))
    stated = "" if run.goal.stated else " The study file names none; this is a usual one."
    caption = (
        f"Operating point: a {run.goal.aim} of {percent(run.goal.wanted)} on all validation "
        f"patients, then measured on test patients, with 95 % intervals.{stated}"
    )
    columns = ("acts from", "sensitivity", "specificity", "PPV", "NPV", "reported")
    return Table(caption, corner, columns, tuple(rows))


def _cells(acted: Acted, threshold: float) -> tuple[Cell, ...]:
    found = acted.operation
    shares = (found.sensitivity, found.specificity, found.ppv, found.npv, found.flagged)
    return (Cell(probability(threshold)), *(interval_cell(share) for share in shares))


def probability(threshold: float) -> str:
    """Return a threshold as read."""
    return f"{100 * threshold:.3g} %"


def predictive_table(run: Acting) -> Table | None:
    """Return PPV and NPV at the prevalence that the study states; None where it states none."""
    prevalence = run.study.evaluation.prevalence
    rows = []
    for k, acted in run.acted.items():
        if (share := prevalence.get(run.names[k])) is None:
            continue
        ppv, npv = predictive_values(acted.sums, share)
        found = acted.operation
        cells = (
            Cell(percent(found.prevalence.value)),
            interval_cell(found.ppv),
            Cell(percent(share)),
            interval_cell(ppv),
            interval_cell(npv),
        )
        rows.append((run.names[k], cells))
    if not rows:
        return None
    caption = (
        "Predictive values where as many have it as the study says of its use, by Bayes' rule from "
        "sensitivity and specificity on test patients, with 95 % intervals."
    )
    columns = ("have it here", "PPV here", "have it in use", "PPV in use", "NPV in use")
    return Table(caption, "class", columns, tuple(rows))


def sets_table(common: Sequence[SetsAt], shrunk: Sequence[SetsAt]) -> Table | None:
    """Return how often sets hold the right class at each hospital; None where none were made."""
    if not common:
        return None
    rows = tuple(
        (
            one.site,
            (
                Cell(str(one.validation)),
                interval_cell(one.covered),
                Cell(f"{one.mean_size:.2f}"),
                interval_cell(own.covered),
                Cell(f"{own.mean_size:.2f}"),
                Cell(percent(own.empty)),
            ),
        )
        for one, own in zip(common, shrunk, strict=True)
    )
    caption = (
        f"Sets of classes (conformal, LAC) that shall hold the right one in {percent(COVERAGE)}: "
        "how often they do on test patients, with 95 % intervals, and how many classes they have. "
        "Empty: no class is likely enough, so the model says that it does not know."
    )
    columns = (
        "validation exam.",
        "one threshold: holds it",
        "classes",
        "shrunk threshold: holds it",
        "classes",
        "empty",
    )
    return Table(caption, "hospital", columns, rows)
