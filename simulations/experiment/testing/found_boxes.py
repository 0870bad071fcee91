"""What every model found in a detection's test images: counts, intervals, and who gained."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from wardround.client.data.cohorts import open_cohorts
from wardround.client.session.model_context import ModelContext
from wardround.client.site.folder import open_site
from wardround.client.training.case_predictions import found_cases
from wardround.common.files.tables import write_table
from wardround.common.parameters.schema import write_parameters
from wardround.common.study.study import Study
from wardround.simulations.evidence.intervals.box_metrics import (
    Boxes,
    DrawnMetrics,
    boxes_together,
    draw_metrics,
)
from wardround.simulations.experiment.testing.paired import paired_row
from wardround.simulations.experiment.testing.predictions import asked_of, whole_model
from wardround.simulations.experiment.training import TrainedModel
from wardround.simulations.run_files.detections import (
    DETECTION_INTERVALS,
    DETECTIONS,
    DetectionIntervalRow,
    DetectionRow,
    detection_rows,
)
from wardround.simulations.run_files.folder import ALL_SITES, FEDERATED, MetricRow, local_model

_Found = Mapping[tuple[str, str], Boxes]  # by model and site


def write_found_boxes(
    out: Path, folders: Sequence[Path], study: Study, models: Sequence[TrainedModel]
) -> list[MetricRow]:
    """Write ``detections.csv`` and ``detection-intervals.csv`` of a detection.

    Returns:
        The federated model's gain over each site's own on the same test patients; nothing for
        another task.
    """
    context = ModelContext.build(study, "cpu")
    if study.task.column != "boxes" or context.plan.objective == "fine-tune":
        return []
    found = {
        (model, folder.name): boxes
        for folder in folders
        for model, boxes in _boxes_of(folder, context, models)
    }
    write_table(out / DETECTIONS, _counts(found, study), DetectionRow)
    metrics = sorted({"map50", "froc", study.metric})
    drawn = {
        key: draw_metrics(boxes, study, metrics) for key, boxes in _with_all_sites(found).items()
    }
    rows = (row for place, metrics in drawn.items() for row in interval_rows(place, metrics))
    write_table(out / DETECTION_INTERVALS, rows, DetectionIntervalRow)
    return list(_gains(drawn))


def _boxes_of(
    folder: Path, context: ModelContext, models: Sequence[TrainedModel]
) -> Iterator[tuple[str, Boxes]]:
    cohort = open_cohorts(open_site(folder), context.study).test
    for model in asked_of(folder, models) if len(cohort) else []:
        write_parameters(context.network, whole_model(context, folder, model))
        images = found_cases(context.network, cohort, context.study)
        yield model.name, Boxes(cohort.patients.numpy(), images)


def _counts(found: _Found, study: Study) -> Iterator[DetectionRow]:
    for (model, site), boxes in found.items():
        sums = boxes.together(study)
        yield from detection_rows(model, site, len(boxes.images), sums, study.data.classes)


def _with_all_sites(found: _Found) -> dict[tuple[str, str], Boxes]:
    """Return what was found, and of models that every site was answered by all sites together."""
    sites = {site for _, site in found}
    by_model: dict[str, list[Boxes]] = {}
    for (model, _), boxes in found.items():
        by_model.setdefault(model, []).append(boxes)
    together = {
        (model, ALL_SITES): boxes_together(parts)
        for model, parts in by_model.items()
        if len(parts) == len(sites)
    }
    return {**found, **together}


def interval_rows(place: tuple[str, str], metrics: DrawnMetrics) -> Iterator[DetectionIntervalRow]:
    """Yield the metrics of a model at a site, each with its interval."""
    for name, i in metrics.intervals().items():
        measured = (i.value, i.low, i.high, i.standard_error, i.freedom)
        yield DetectionIntervalRow(*place, name, *measured, patients=i.patients)


def _gains(drawn: Mapping[tuple[str, str], DrawnMetrics]) -> Iterator[MetricRow]:
    for (model, site), federated in drawn.items():
        own = drawn.get((local_model(site), site))
        if model == FEDERATED and own is not None:
            for metric, gain in federated.gains_over(own).items():
                if gain.is_known:
                    yield paired_row(site, metric, gain)
