"""Every model of a series at every hospital, from what its runs left behind."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from wardround.common.files.tables import read_kept_table, write_table
from wardround.common.statistics.interval import Interval, unknown_interval
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study
from wardround.simulations.evidence.intervals.estimates import (
    Answered,
    Measure,
    all_together,
    difference,
    expected_calibration_error,
    measure,
)
from wardround.simulations.run_files.detections import read_detection_intervals
from wardround.simulations.run_files.folder import (
    FEDERATED,
    POOLED,
    MetricRow,
    SplitRow,
    local_model,
)
from wardround.simulations.run_files.predictions import (
    Key,
    Scores,
    read_predictions,
)
from wardround.simulations.run_files.series import (
    CALIBRATION,
    LEFT_OUT,
    LEFT_OUT_EVERYBODY,
    MEASURED,
    OWN,
    TAKING_PART,
    MeasuredRow,
    Part,
    SeriesFacts,
)

_TEST = "test"


def write_measured(out: Path, facts: SeriesFacts, study: Study) -> tuple[MeasuredRow, ...]:
    """Write ``measured.csv`` of a series, and of each run in which all take part its own rows."""
    rows: list[MeasuredRow] = []
    for part in facts.together():
        folder = out / "runs" / part.name
        own = list(_of_part(out, part, facts, study))
        write_table(folder / MEASURED, own, MeasuredRow)
        rows += own
    write_table(out / MEASURED, rows, MeasuredRow)
    return tuple(rows)


def metrics_of(study: Study) -> tuple[str, ...]:
    """Return what is measured: the study's metric, and AUROC of a classification."""
    first = study.metric if study.metric != "loss" else study.task.metric
    return tuple(dict.fromkeys((first, study.task.metric)))


def sites_of_run(run: Path) -> tuple[str, ...]:
    """Return the hospitals of a run, in their order."""
    return tuple(dict.fromkeys(row.site for row in read_kept_table(run / "split.csv", SplitRow)))


def _read(folder: Path, study: Study) -> Mapping[Key, Answered]:
    said = read_predictions(folder, study)
    return {**said.scores, **said.masks, **said.outcomes}


def _of_part(out: Path, part: Part, facts: SeriesFacts, study: Study) -> Iterator[MeasuredRow]:
    run = out / "runs" / part.name
    if study.task.boxes:
        yield from _of_boxes(out, part, facts, study)
        return
    held, sites = _read(run, study), sites_of_run(run)
    without = {p.left_out: out / "runs" / p.name for p in facts.without_each(sites, part.seed)}
    for site in sites:
        answers = {
            OWN: held.get((local_model(site), site, _TEST)),
            FEDERATED: held.get((FEDERATED, site, _TEST)),
            POOLED: held.get((POOLED, site, _TEST)),
        }
        if facts.leave_one_site_out:
            aside = _read(without[site] / LEFT_OUT, study)
            answers[LEFT_OUT] = aside.get((LEFT_OUT, site, _TEST))
            answers[LEFT_OUT_EVERYBODY] = _joined(list(aside.values()))
        known = {name: one for name, one in answers.items() if one is not None}
        yield from _of_site((part.seed, site), known, study)


def _of_boxes(out: Path, part: Part, facts: SeriesFacts, study: Study) -> Iterator[MeasuredRow]:
    """Yield what runs measured of boxes; a gain has no interval: no image's boxes are kept."""
    run = out / "runs" / part.name
    tested = [
        row
        for row in read_kept_table(run / "metrics.csv", MetricRow)
        if (row.split, row.class_name) == (_TEST, "") and row.metric in metrics_of(study)
    ]
    intervals, sites = read_detection_intervals(run), sites_of_run(run)
    without = {p.left_out: out / "runs" / p.name for p in facts.without_each(sites, part.seed)}
    for site in sites:
        names = {local_model(site): OWN, FEDERATED: FEDERATED, POOLED: POOLED}
        taking_part: dict[str, float] = {}
        examinations = 0
        for row in tested:
            if row.site == site and row.model in names:
                unknown = unknown_interval(row.value, row.support)
                found = intervals.get((row.model, site, row.metric, ""), unknown)
                yield _row((part.seed, site, names[row.model], row.metric), found, row.support)
                if row.model == FEDERATED:
                    taking_part[row.metric], examinations = row.value, row.support
        aside = (
            read_detection_intervals(without[site] / LEFT_OUT) if facts.leave_one_site_out else {}
        )
        for (model, _, metric, _), found in aside.items():
            seen = examinations if model == LEFT_OUT else found.patients
            yield _row((part.seed, site, model, metric), found, seen)
            if model == LEFT_OUT and metric in taking_part:
                gain = unknown_interval(taking_part[metric] - found.value, found.patients)
                yield _row((part.seed, site, TAKING_PART, metric), gain, examinations)


def _joined(parts: Sequence[Answered]) -> Answered | None:
    return all_together(parts) if parts else None


def _of_site(
    place: tuple[int, str], answers: Mapping[str, Answered], study: Study
) -> Iterator[MeasuredRow]:
    seed, site = place
    for metric in metrics_of(study):
        found: dict[str, Measure] = {}
        for model, one in answers.items():
            measured = measure(metric, one, study.data.multi_label)
            if measured is None:
                continue
            found[model] = measured
            yield _row((seed, site, model, metric), measured.interval, len(measured.patients))
        if LEFT_OUT in found and FEDERATED in found:
            better, worse = found[FEDERATED], found[LEFT_OUT]
            if not METRICS[metric].higher_is_better:
                better, worse = worse, better
            gain = difference(better, worse)
            yield _row((seed, site, TAKING_PART, metric), gain, len(better.patients))
    for model, one in answers.items():
        if isinstance(one, Scores):
            value = expected_calibration_error(one, study.data.multi_label)
            unknown = unknown_interval(value, len(set(one.patients.tolist())))
            yield _row((seed, site, model, CALIBRATION), unknown, len(one.cases))


def _row(place: tuple[int, str, str, str], found: Interval, examinations: int) -> MeasuredRow:
    return MeasuredRow(
        *place,
        found.value,
        found.low,
        found.high,
        found.standard_error,
        found.patients,
        examinations,
    )
