"""What a federation's model says of the patients of a hospital that took no part in it."""

from collections.abc import Iterator
from pathlib import Path

from wardround.client.data.cohort import Cohort
from wardround.client.data.cohorts import open_cohorts
from wardround.client.data.manifest.examination import SPLITS
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.training.case_predictions import (
    classified_cases,
    found_cases,
    outcome_cases,
    segmented_cases,
)
from wardround.common.errors import InputError
from wardround.common.files.tables import write_table
from wardround.common.metrics.sums import has_surfaces
from wardround.common.parameters.schema import write_parameters
from wardround.common.study.loading import load_study
from wardround.common.study.study import Study
from wardround.simulations.evidence.intervals.box_metrics import (
    Boxes,
    boxes_together,
    draw_metrics,
)
from wardround.simulations.experiment.series.measured import metrics_of
from wardround.simulations.experiment.testing.found_boxes import interval_rows
from wardround.simulations.experiment.testing.predictions import (
    Place,
    case_rows,
    outcome_rows,
    score_rows,
)
from wardround.simulations.experiment.training import load_trained
from wardround.simulations.run_files.detections import DETECTION_INTERVALS, DetectionIntervalRow
from wardround.simulations.run_files.folder import FEDERATED
from wardround.simulations.run_files.outcomes import OUTCOMES, OutcomeRow
from wardround.simulations.run_files.predictions import CASES, PREDICTIONS, CaseRow, ScoreRow
from wardround.simulations.run_files.series import LEFT_OUT, LEFT_OUT_EVERYBODY


def require_whole_models(study: Study) -> None:
    """Check that a hospital that took no part can be served by the model that the others trained.

    Raises:
        InputError: A part of the model stays at each hospital, or is trained on before each test.
    """
    if study.data.combat is not None:
        msg = (
            "data.combat was fitted with every hospital, and cannot place one that took no part: "
            "remove it, or leave no hospital out."
        )
        raise InputError(msg)
    context = ModelContext.build(study, "cpu")
    personal = bool(context.layout.personal) or context.plan.objective == "fine-tune"
    if personal:
        msg = (
            f"federation.strategy = {study.federation.strategy!r} gives each hospital a part of "
            "its own, which a hospital that took no part does not have: choose a strategy that "
            "shares the whole model, as fedavg."
        )
        raise InputError(msg)


def predictions_file(run: Path, study: Study) -> Path:
    """Return the file with what the run's model says of the hospital that took no part."""
    if study.task.outcome:
        return run / LEFT_OUT / OUTCOMES
    if study.task.boxes:
        return run / LEFT_OUT / DETECTION_INTERVALS
    return run / LEFT_OUT / (CASES if study.task.dense else PREDICTIONS)


def predict_left_out(run: Path) -> None:
    """Write what a finished run's model says of each patient of the hospital that took no part.

    All three parts of its patients are answered: none of them was trained on. Of boxes the metrics
    are written, with their intervals.

    Raises:
        InputError: The run has no finished model.
    """
    study = load_study(run / "study.toml")
    model = load_trained(run, FEDERATED)
    folder = next(path for path in sorted((run / LEFT_OUT).iterdir()) if path.is_dir())
    if model is None:
        msg = f"{run} has no finished model: go on with the run first."
        raise InputError(msg)
    context = ModelContext.build(study, "cpu")
    write_parameters(context.network, context.on_base(model.parameters))
    path = predictions_file(run, study)
    if study.task.outcome:
        write_table(path, _outcomes(context, folder), OutcomeRow)
    elif study.task.boxes:
        write_table(path, _boxes(context, folder), DetectionIntervalRow)
    elif study.task.dense:
        write_table(path, _masks(context, folder), CaseRow)
    else:
        write_table(path, _scores(context, folder), ScoreRow)


def _cohorts(folder: Path, study: Study) -> Iterator[tuple[str, Cohort]]:
    cohorts = open_cohorts(open_site(folder), study)
    yield from zip(SPLITS, (cohorts.train, cohorts.validation, cohorts.test), strict=True)


def _scores(context: ModelContext, folder: Path) -> Iterator[ScoreRow]:
    for split, cohort in _cohorts(folder, context.study):
        found = classified_cases(context.network, cohort, context.study)
        yield from score_rows(Place(LEFT_OUT, folder.name, split), found, context.study)


def _outcomes(context: ModelContext, folder: Path) -> Iterator[OutcomeRow]:
    for split, cohort in _cohorts(folder, context.study):
        found = outcome_cases(context.network, cohort, context.study)
        yield from outcome_rows(Place(LEFT_OUT, folder.name, split), found)


def _boxes(context: ModelContext, folder: Path) -> Iterator[DetectionIntervalRow]:
    """Yield the metrics on the hospital's test patients, and on all of its patients."""
    study = context.study
    parts = {
        split: Boxes(cohort.patients.numpy(), found_cases(context.network, cohort, study))
        for split, cohort in _cohorts(folder, study)
    }
    asked = {LEFT_OUT: parts["test"], LEFT_OUT_EVERYBODY: boxes_together([*parts.values()])}
    metrics = sorted({"froc", *metrics_of(study)})
    for model, boxes in asked.items():
        if boxes.images:
            yield from interval_rows((model, folder.name), draw_metrics(boxes, study, metrics))


def _masks(context: ModelContext, folder: Path) -> Iterator[CaseRow]:
    study = context.study
    for split, cohort in _cohorts(folder, study):
        surfaces = split == "test" and has_surfaces(study)
        found = segmented_cases(context.network, cohort, study, surfaces=surfaces)
        yield from case_rows(Place(LEFT_OUT, folder.name, split), found, study)
