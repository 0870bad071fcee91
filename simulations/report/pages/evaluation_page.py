"""One self-contained page on a model at a hospital that took no part."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.study.loading import load_study
from wardround.common.study.study import Study
from wardround.simulations.report.charts.tables import Cell, Table
from wardround.simulations.report.contents import RunContents
from wardround.simulations.report.page import fill_page
from wardround.simulations.report.sections.order import make_sections
from wardround.simulations.report.sections.section import Section
from wardround.simulations.report.wording import metric_title, number, sentence_title
from wardround.simulations.run_files.detections import read_detections
from wardround.simulations.run_files.evaluation import (
    EvaluationFacts,
    MetricValue,
    read_evaluation,
)
from wardround.simulations.run_files.folder import FEDERATED, RunFacts, SplitRow
from wardround.simulations.run_files.outcomes import Outcomes
from wardround.simulations.run_files.predictions import Key, Masks, Scores, read_predictions

_CALIBRATION = "ece"
Answers = TypeVar("Answers", Scores, Masks, Outcomes)


def headline(facts: EvaluationFacts, study: Study) -> str:
    """Return the sentence to remember."""
    found = {one.metric: one for one in facts.metrics}
    one = found.get(study.metric) or next(iter(found.values()), None)
    who = f"{facts.patients} patients" + (" who trained nothing of it" if facts.are_new else "")
    if one is None or math.isnan(one.value):
        return f"At {facts.site} nothing can be measured on {facts.patients} patients."
    reach = "" if math.isnan(one.low) else f" ({_interval(one)})"
    before = ""
    if not math.isnan(one.in_the_run):
        before = f"; at the hospitals that trained it was {number(one.in_the_run, one.metric)}"
    value = f"{metric_title(one.metric)} is {number(one.value, one.metric)}{reach}"
    return f"At {facts.site} the model's {value} on {who}{before}."


def evaluation_contents(folder: Path) -> tuple[EvaluationFacts, RunContents]:
    """Read an evaluation, and what the report's sections look at.

    Raises:
        InputError: The folder holds none, or one of another version.
    """
    facts, study = read_evaluation(folder), load_study(folder / "study.toml", planned=False)
    said = read_predictions(folder, study)
    found = read_detections(folder, study.data.classes)  # of one model
    scores, masks = _as_federated(said.scores), _as_federated(said.masks)
    run = RunFacts(
        wardround=facts.wardround,
        command=facts.command,
        digest=study.digest,
        seed=study.federation.seed,
        started=facts.started,
        status="finished",
    )
    split = (SplitRow(facts.site, "test", "", facts.examinations, facts.patients),)
    contents = RunContents(
        folder,
        run,
        study,
        study.to_toml(),
        (),
        (),
        split,
        None,
        scores=scores,
        masks=masks,
        outcomes=_as_federated(said.outcomes),
        detections=dict(zip((FEDERATED,), found.values(), strict=False)),
    )
    return facts, contents


def _as_federated(held: Mapping[Key, Answers]) -> Mapping[Key, Answers]:
    """Return answers as a run's sections look for them, whatever the model is called."""
    return {(FEDERATED, site, split): answers for (_, site, split), answers in held.items()}


def write_evaluation_page(folder: Path) -> Path:
    """Write ``report.html`` into an evaluation's folder.

    Raises:
        InputError: The folder holds no evaluation, or the packages that the report needs are not
            installed.
    """
    facts, contents = evaluation_contents(folder)
    study = contents.study
    if study is None:  # pragma: no cover - it was loaded just now
        raise TypeError
    text = fill_page(
        "evidence.html.jinja",
        kicker="Wardround report of a model at another hospital",
        study=study,
        byline=f"model {facts.model} at {facts.site}, {facts.patients} patients ({facts.split}), "
        f"{facts.examinations} examinations; {facts.started}",
        headline=headline(facts, study),
        sections=(_numbers(facts), *make_sections(contents)),
        runs=(),
        notes=facts.notes,
        command=shlex.join(facts.command),
    )
    path = folder / "report.html"
    replace_file(path, text, BY_UMASK, durable=False)
    return path


def title_of(metric: str) -> str:
    """Return what a table calls a metric, the calibration error too."""
    if metric == _CALIBRATION:
        return "Calibration error (ECE), lower is better"
    return sentence_title(metric)


def _numbers(facts: EvaluationFacts) -> Section:
    rows = tuple(
        (
            title_of(one.metric),
            (
                Cell(number(one.value, one.metric), _interval(one)),
                Cell(number(one.in_the_run, one.metric)),
            ),
        )
        for one in facts.metrics
    )
    columns = (f"{facts.site}, {facts.patients} patients", "the run's own hospitals, mean")
    table = Table(f"The model at {facts.site}.", "measure", columns, rows)
    return Section(
        anchor="external",
        title="How good is it here?",
        answer=("Below each value its 95 % interval; its unit is the patient.",),
        tables=(table,),
    )


def _interval(one: MetricValue) -> str:
    if math.isnan(one.low):
        return ""
    return f"{number(one.low, one.metric)} to {number(one.high, one.metric)}"
