"""What every finished model says of each validation and test examination, into the run folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wardround.client.data.cohort import Cohort, open_cohorts
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.site.state import SiteState
from wardround.client.training.case_predictions import (
    ClassifiedCases,
    SegmentedCases,
    classified_cases,
    segmented_cases,
)
from wardround.common.files.tables import write_table
from wardround.common.metrics.sums import has_surfaces
from wardround.common.parameters.schema import Parameters, write_parameters
from wardround.common.study.study import Study
from wardround.simulations.experiment.training import TrainedModel
from wardround.simulations.run_files.folder import FEDERATED, UNPROTECTED, local_model
from wardround.simulations.run_files.predictions import (
    CASES,
    ENSEMBLE,
    PREDICTIONS,
    SHARED,
    CaseRow,
    ScoreRow,
)

SPLITS = ("validation", "test")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where predictions are from."""

    model: str
    site: str
    split: str


def write_predictions(
    out: Path, folders: Sequence[Path], study: Study, models: Sequence[TrainedModel]
) -> None:
    """Write ``predictions.csv`` of a classification, ``cases.csv`` of a segmentation.

    Every site's examinations are answered by the federated model (completed with the site's own
    part where it has one; then the shared one too, if it is whole), the pooled one, the site's own,
    and of a classification by all sites' own models together. A study that trains the federated
    model on before each test leaves none, for no file holds the model that would be asked.
    """
    context = ModelContext.build(study, "cpu")
    if context.plan.objective == "fine-tune":
        return
    models = [*models, *_shared(context, models)]
    if study.task.classifies:
        rows = (row for folder in folders for row in _scores_of(folder, folders, context, models))
        write_table(out / PREDICTIONS, rows, ScoreRow)
    elif study.task.dense:
        marked = (row for folder in folders for row in _masks_of(folder, context, models))
        write_table(out / CASES, marked, CaseRow)


def _asked(folder: Path, models: Sequence[TrainedModel]) -> list[TrainedModel]:
    """Return the models that a site's examinations are answered by."""
    others = {FEDERATED, UNPROTECTED, "pooled", SHARED, local_model(folder.name)}
    return [model for model in models if model.name in others]


def _shared(context: ModelContext, models: Sequence[TrainedModel]) -> list[TrainedModel]:
    """Return the model that all sites receive, where it is whole and each uses one of its own."""
    if not context.plan.personalised or context.layout.personal:
        return []
    return [replace(model, name=SHARED) for model in models if model.name == FEDERATED]


def _whole(context: ModelContext, folder: Path, model: TrainedModel) -> Parameters:
    """Return all numbers of a model as the site uses it."""
    if model.name != FEDERATED:
        return context.on_base(model.parameters)
    state = SiteState(open_site(folder).state_folder, context.study.digest, model.run)
    return context.own_model(state, model.round, model.parameters)


def _scores_of(
    folder: Path, folders: Sequence[Path], context: ModelContext, models: Sequence[TrainedModel]
) -> Iterator[ScoreRow]:
    site, study = open_site(folder), context.study
    cohorts = open_cohorts(site, study)
    alone = {local_model(other.name) for other in folders}
    asked = {model.name for model in _asked(folder, models)}
    used = [model for model in models if model.name in asked | alone]
    for split, cohort in zip(SPLITS, (cohorts.validation, cohorts.test), strict=True):
        together: list[ClassifiedCases] = []
        for model in used:
            write_parameters(context.network, _whole(context, folder, model))
            found = classified_cases(context.network, cohort, study)
            if model.name in asked:
                yield from _score_rows(_Place(model.name, site.name, split), found, study)
            if model.name in alone:
                together.append(found)
        if len(together) > 1:
            yield from _score_rows(_Place(ENSEMBLE, site.name, split), _mean(together), study)


def _mean(found: Sequence[ClassifiedCases]) -> ClassifiedCases:
    scores = np.mean([one.scores for one in found], axis=0)
    return ClassifiedCases(found[0].rows, found[0].patients, scores, found[0].truth)


def _score_rows(place: _Place, found: ClassifiedCases, study: Study) -> Iterator[ScoreRow]:
    for index, (row, patient) in enumerate(zip(found.rows, found.patients, strict=True)):
        for k, name in enumerate(study.data.classes):
            score, label = float(found.scores[index, k]), int(found.truth[index, k])
            yield ScoreRow(
                place.model, place.site, place.split, int(row), int(patient), name, score, label
            )


def _masks_of(
    folder: Path, context: ModelContext, models: Sequence[TrainedModel]
) -> Iterator[CaseRow]:
    site, study = open_site(folder), context.study
    cohorts = open_cohorts(site, study)
    for split, cohort in zip(SPLITS, (cohorts.validation, cohorts.test), strict=True):
        for model in _asked(folder, models):
            # Surfaces take longer than all else: of the two models that are compared, at the end.
            measured = split == "test" and model.name in {FEDERATED, local_model(folder.name)}
            write_parameters(context.network, _whole(context, folder, model))
            found = _marked(context, cohort, measured)
            yield from _case_rows(_Place(model.name, site.name, split), found, study)


def _marked(context: ModelContext, cohort: Cohort, surfaces: bool) -> SegmentedCases:
    study = context.study
    surfaces = surfaces and has_surfaces(study)
    return segmented_cases(context.network, cohort, study, surfaces=surfaces)


def _case_rows(place: _Place, found: SegmentedCases, study: Study) -> Iterator[CaseRow]:
    for index, (row, patient) in enumerate(zip(found.rows, found.patients, strict=True)):
        for k, name in enumerate(study.data.classes):
            if k == 0:
                continue
            yield CaseRow(
                place.model,
                place.site,
                place.split,
                int(row),
                int(patient),
                name,
                float(found.dice[index, k]),
                float(found.hd95_mm[index, k]),
                float(found.surface_dice[index, k]),
                float(found.truth_voxels[index, k] * found.voxel_ml[index]),
                float(found.found_voxels[index, k] * found.voxel_ml[index]),
            )
