"""How sure it is that a model is better or worse than its parent, on one site's patients of a wave.

Both models are asked of the same patients, so that their difference is surer than either value.
"""

import math
from collections.abc import Iterator

import numpy as np

from wardround.client.data.cohort import Cohort
from wardround.client.session.model_context import ModelContext
from wardround.client.training.case_predictions import (
    classified_cases,
    outcome_cases,
    segmented_cases,
)
from wardround.common.parameters.schema import Parameters, write_parameters
from wardround.common.statistics.interval import Interval
from wardround.common.study.study import Study
from wardround.simulations.evidence.intervals.outcome_metrics import outcome_gains
from wardround.simulations.evidence.intervals.paired_gains import mask_gains, score_gains
from wardround.simulations.evidence.intervals.run_intervals import Labels
from wardround.simulations.run_files.outcomes import Outcomes
from wardround.simulations.run_files.predictions import MEASURES, Masks, Scores


def gain_interval(
    context: ModelContext, cohort: Cohort, made: Parameters, parent: Parameters
) -> Interval | None:
    """Return the gain of a model over its parent in the study's metric, with its interval.

    None of a task or metric of which patients' differences are not told (boxes, a loss).
    """
    study = context.study
    for metric, found in _gains(context, cohort, made, parent):
        if metric == study.metric:
            return found
    return None


def _gains(
    context: ModelContext, cohort: Cohort, made: Parameters, parent: Parameters
) -> Iterator[tuple[str, Interval]]:
    task, study = context.study.task, context.study
    if task.classifies:
        labels = Labels(study.data.classes, study.data.multi_label)
        yield from score_gains(
            _scores(context, cohort, made), _scores(context, cohort, parent), labels
        )
    elif task.dense:
        yield from mask_gains(_masks(context, cohort, made), _masks(context, cohort, parent))
    elif task.outcome:
        yield from outcome_gains(
            _outcomes(context, cohort, made), _outcomes(context, cohort, parent)
        )


def _scores(context: ModelContext, cohort: Cohort, model: Parameters) -> Scores:
    write_parameters(context.network, model)
    found = classified_cases(context.network, cohort, context.study)
    return Scores(found.rows, found.patients, found.scores, found.truth)


def _masks(context: ModelContext, cohort: Cohort, model: Parameters) -> Masks:
    study: Study = context.study
    write_parameters(context.network, model)
    surfaces = study.metric in ("hd95", "surface-dice")
    found = segmented_cases(context.network, cohort, study, surfaces=surfaces, lesions=False)
    measured = {
        "dice": found.dice[:, 1:],
        "hd95": found.hd95_mm[:, 1:],
        "surface_dice": found.surface_dice[:, 1:],
    }
    unknown = np.full_like(measured["dice"], math.nan)
    return Masks(found.rows, found.patients, *(measured.get(name, unknown) for name in MEASURES))


def _outcomes(context: ModelContext, cohort: Cohort, model: Parameters) -> Outcomes:
    write_parameters(context.network, model)
    found = outcome_cases(context.network, cohort, context.study)
    return Outcomes(
        context.study.task.outcome,
        found.rows,
        found.patients,
        found.truth,
        found.events,
        found.estimates,
        found.hazards,
        found.errors,
    )
