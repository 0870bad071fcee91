"""What every finished model says of each validation and test examination, into the run folder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wardround.client.data.cohort import Cohort
from wardround.client.data.cohorts import Cohorts, open_cohorts
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.site.state import SiteState
from wardround.client.training.case_groups import groups_of
from wardround.client.training.case_predictions import (
    ClassifiedCases,
    OutcomeCases,
    SegmentedCases,
    classified_cases,
    outcome_cases,
    segmented_cases,
)
from wardround.common.files.tables import write_table
from wardround.common.metrics.sums import has_surfaces
from wardround.common.parameters.schema import Parameters, write_parameters
from wardround.common.study.study import Study
from wardround.simulations.experiment.training import TrainedModel
from wardround.simulations.run_files.folder import FEDERATED, UNPROTECTED, local_model
from wardround.simulations.run_files.groups import GROUPS, GroupRow
from wardround.simulations.run_files.outcomes import OUTCOMES, OutcomeRow
from wardround.simulations.run_files.predictions import (
    CASES,
    ENSEMBLE,
    LESIONS,
    PREDICTIONS,
    SHARED,
    CaseRow,
    LesionRow,
    ScoreRow,
)

SPLITS = ("validation", "test")
_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Place:
    """Where predictions are from."""

    model: str
    site: str
    split: str


def write_predictions(
    out: Path,
    folders: Sequence[Path],
    study: Study,
    models: Sequence[TrainedModel],
    opened: dict[Path, Cohorts] | None = None,
) -> None:
    """Write ``predictions.csv`` of a classification, ``cases.csv`` of a segmentation.

    Of a regression or a survival task it is ``outcomes.csv``.

    What is found in boxes is written by :func:`~.found_boxes.write_found_boxes`.

    Every site's examinations are answered by the federated model (completed with the site's own
    part where it has one; then the shared one too, if it is whole), the pooled one, the site's own,
    and of a classification by all sites' own models together. A study that trains the federated
    model on before each test leaves none, for no file holds the model that would be asked.

    Args:
        opened: Where each site's patients are left for who measures on them next; else they are
            let go of, one site after the other.
    """
    context = ModelContext.build(study, "cpu")
    if context.plan.objective == "fine-tune":
        return
    models = [*models, *_shared(context, models)]
    if study.task.classifies:
        rows = (
            row
            for folder in folders
            for row in _scores_of(folder, folders, context, models, opened)
        )
        write_table(out / PREDICTIONS, rows, ScoreRow)
    elif study.task.dense:
        lesions: list[LesionRow] = []
        marked = (row for folder in folders for row in _masks_of(folder, context, models, lesions))
        write_table(out / CASES, marked, CaseRow)
        write_table(out / LESIONS, lesions, LesionRow)
    elif study.task.outcome:
        answered = (row for folder in folders for row in _outcomes_of(folder, context, models))
        write_table(out / OUTCOMES, answered, OutcomeRow)


def write_groups(out: Path, folders: Sequence[Path], study: Study) -> None:
    """Write ``groups.csv`` where the study has subgroups: the group of each examination."""
    if study.evaluation.subgroups:
        rows = (row for folder in folders for row in _groups_of(folder, study))
        write_table(out / GROUPS, rows, GroupRow)


def _groups_of(folder: Path, study: Study) -> Iterator[GroupRow]:
    site = open_site(folder)
    cohorts = open_cohorts(site, study)
    for split, cohort in zip(SPLITS, (cohorts.validation, cohorts.test), strict=True):
        yield from group_rows(site.name, split, cohort, study)


def group_rows(site: str, split: str, cohort: Cohort, study: Study) -> Iterator[GroupRow]:
    """Yield the group of each examination of a cohort by each of the study's groupings."""
    for grouping, groups in groups_of(cohort, study).items():
        for examination, group in zip(cohort.examinations, groups, strict=True):
            yield GroupRow(site, split, examination.row, grouping, group)


def asked_of(folder: Path, models: Sequence[TrainedModel]) -> list[TrainedModel]:
    """Return the models that a site's examinations are answered by."""
    others = {FEDERATED, UNPROTECTED, "pooled", SHARED, local_model(folder.name)}
    return [model for model in models if model.name in others]


def _shared(context: ModelContext, models: Sequence[TrainedModel]) -> list[TrainedModel]:
    """Return the model that all sites receive, where it is whole and each uses one of its own."""
    if not context.plan.personalised or context.layout.personal:
        return []
    return [replace(model, name=SHARED) for model in models if model.name == FEDERATED]


def whole_model(context: ModelContext, folder: Path, model: TrainedModel) -> Parameters:
    """Return all numbers of a model as the site uses it."""
    if model.name != FEDERATED:
        return context.on_base(model.parameters)
    state = SiteState(open_site(folder).state_folder, context.study.digest, model.run)
    return context.own_model(state, model.round, model.parameters)


def _scores_of(
    folder: Path,
    folders: Sequence[Path],
    context: ModelContext,
    models: Sequence[TrainedModel],
    opened: dict[Path, Cohorts] | None,
) -> Iterator[ScoreRow]:
    site, study = open_site(folder), context.study
    cohorts = open_cohorts(site, study)
    if opened is not None:
        opened[folder] = cohorts
    alone = {local_model(other.name) for other in folders}
    asked = {model.name for model in asked_of(folder, models)}
    used = [model for model in models if model.name in asked | alone]
    for split, cohort in zip(SPLITS, (cohorts.validation, cohorts.test), strict=True):
        together: list[ClassifiedCases] = []
        for model in used:
            write_parameters(context.network, whole_model(context, folder, model))
            found = classified_cases(context.network, cohort, study)
            if model.name in asked:
                yield from score_rows(Place(model.name, site.name, split), found, study)
            if model.name in alone:
                together.append(found)
        if len(together) > 1:
            yield from score_rows(Place(ENSEMBLE, site.name, split), _mean(together), study)


def _mean(found: Sequence[ClassifiedCases]) -> ClassifiedCases:
    scores = np.mean([one.scores for one in found], axis=0)
    return ClassifiedCases(found[0].rows, found[0].patients, scores, found[0].truth)


def score_rows(place: Place, found: ClassifiedCases, study: Study) -> Iterator[ScoreRow]:
    """Yield a row an examination and class."""
    for index, (row, patient) in enumerate(zip(found.rows, found.patients, strict=True)):
        for k, name in enumerate(study.data.classes):
            score, label = float(found.scores[index, k]), int(found.truth[index, k])
            yield ScoreRow(
                place.model, place.site, place.split, int(row), int(patient), name, score, label
            )


def _outcomes_of(
    folder: Path, context: ModelContext, models: Sequence[TrainedModel]
) -> Iterator[OutcomeRow]:
    site, study = open_site(folder), context.study
    cohorts = open_cohorts(site, study)
    for split, cohort in zip(SPLITS, (cohorts.validation, cohorts.test), strict=True):
        for model in asked_of(folder, models):
            write_parameters(context.network, whole_model(context, folder, model))
            found = outcome_cases(context.network, cohort, study)
            yield from outcome_rows(Place(model.name, site.name, split), found)


def outcome_rows(place: Place, found: OutcomeCases) -> Iterator[OutcomeRow]:
    """Yield a row an examination."""
    for index, (row, patient) in enumerate(zip(found.rows, found.patients, strict=True)):
        yield OutcomeRow(
            place.model,
            place.site,
            place.split,
            int(row),
            int(patient),
            float(found.truth[index]),
            int(found.events[index]),
            float(found.estimates[index]),
            float(found.hazards[index]),
            float(found.errors.brier[index]),
            float(found.errors.told[index]),
            float(found.errors.alive[index]),
            float(found.errors.weight[index]),
        )


def _masks_of(
    folder: Path,
    context: ModelContext,
    models: Sequence[TrainedModel],
    lesions: list[LesionRow],
) -> Iterator[CaseRow]:
    """Yield a row a case and class; the test cases' lesions are put into a list."""
    site, study = open_site(folder), context.study
    cohorts = open_cohorts(site, study)
    for split, cohort in zip(SPLITS, (cohorts.validation, cohorts.test), strict=True):
        for model in asked_of(folder, models):
            # Surfaces take longer than all else: of the two models that are compared, at the end.
            # Lesions are counted of the same.
            measured = split == "test" and model.name in {FEDERATED, local_model(folder.name)}
            write_parameters(context.network, whole_model(context, folder, model))
            found = _marked(context, cohort, measured)
            place = Place(model.name, site.name, split)
            yield from case_rows(place, found, study)
            if measured:
                lesions += _lesion_rows(place, found, study)


def _marked(context: ModelContext, cohort: Cohort, measured: bool) -> SegmentedCases:
    study = context.study
    surfaces = measured and has_surfaces(study)
    return segmented_cases(context.network, cohort, study, surfaces=surfaces, lesions=measured)


def case_rows(place: Place, found: SegmentedCases, study: Study) -> Iterator[CaseRow]:
    """Yield a row an examination and foreground class."""
    for index, (row, patient) in enumerate(zip(found.rows, found.patients, strict=True)):
        for k, name in enumerate(study.data.classes):
            if k == 0:
                continue
            counted = found.lesions[index].get(k)
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
                _NAN if counted is None else len(counted.voxels),
                _NAN if counted is None else counted.found,
                _NAN if counted is None else counted.false,
            )


def _lesion_rows(place: Place, found: SegmentedCases, study: Study) -> Iterator[LesionRow]:
    for index, (row, patient) in enumerate(zip(found.rows, found.patients, strict=True)):
        for k, counted in found.lesions[index].items():
            for voxels, covered in zip(counted.voxels, counted.covered, strict=True):
                yield LesionRow(
                    place.model,
                    place.site,
                    int(row),
                    int(patient),
                    study.data.classes[k],
                    float(voxels * found.voxel_ml[index]),
                    float(covered / voxels),
                )
