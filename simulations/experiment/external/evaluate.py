"""``wardround evaluate``: a finished model on the patients of a hospital that took no part."""

import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import wardround
from wardround.client.clinic.inference.outside import reasons_outside
from wardround.client.data.reading.image import fill_absent
from wardround.client.data.reading.readers import read_image
from wardround.client.site.device import choose_arithmetic, device_for
from wardround.client.training.case_predictions import (
    classified_cases,
    found_cases,
    outcome_cases,
    segmented_cases,
)
from wardround.common.errors import InputError, known_names
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.files.tables import write_table
from wardround.common.metrics.sums import has_surfaces
from wardround.common.models.model_folder import ModelFolder, is_model_folder, open_model_folder
from wardround.common.study.loading import with_changes
from wardround.common.study.registry import METRICS
from wardround.common.study.study import Study
from wardround.simulations.evidence.intervals.box_metrics import Boxes, box_intervals
from wardround.simulations.evidence.intervals.estimates import (
    Answered,
    expected_calibration_error,
    measure,
)
from wardround.simulations.experiment.external.hospital import (
    EVERYBODY,
    Hospital,
    home_of,
    open_hospital,
)
from wardround.simulations.experiment.external.seen_before import require_new_patients
from wardround.simulations.experiment.testing.predictions import (
    Place,
    case_rows,
    group_rows,
    outcome_rows,
    score_rows,
)
from wardround.simulations.run_files.detections import DETECTIONS, DetectionRow, detection_rows
from wardround.simulations.run_files.evaluation import (
    EVALUATION,
    EvaluationFacts,
    MetricValue,
)
from wardround.simulations.run_files.folder import FEDERATED, new_folder
from wardround.simulations.run_files.groups import GROUPS, GroupRow
from wardround.simulations.run_files.outcomes import OUTCOMES, OutcomeRow, outcomes_of
from wardround.simulations.run_files.predictions import (
    CASES,
    PREDICTIONS,
    CaseRow,
    ScoreRow,
    Scores,
    masks_of,
)

_SPLIT = "test"  # as a run calls patients who made no model
_LOOKED_AT = 48
_NO_NUMBERS = "the model's answers are not numbers: its weights or the hospital's data are damaged."
_Answered = Answered | Boxes
_Rows = list[ScoreRow] | list[CaseRow] | list[OutcomeRow] | list[DetectionRow]
_NO_RUN = (
    "Whether these patients trained the model cannot be told: a model folder names no patient. "
    "Give the run folder that it is from."
)
_SCALED = (
    "The model's study scales clinical values by each hospital's own: here by those of the "
    "patients that are tested."
)


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What a user asks for.

    Attributes:
        run: A run folder, or a model folder.
        place: A site folder, a folder with a manifest, or a manifest.
        out: The folder to write; must be new.
        model: Of a run folder the model's name.
        split: ``all``, or a part of the manifest's column split.
        subgroups: By what patients are grouped, instead of what the study says; None leaves it.
        command: The command line that repeats it.
    """

    run: Path
    place: Path
    out: Path
    model: str = FEDERATED
    split: str = EVERYBODY
    subgroups: tuple[str, ...] | None = None
    device: str = "auto"
    command: tuple[str, ...] = field(default=())


def evaluate_at(request: EvaluationRequest) -> Path:
    """Test a model at a hospital, and leave a folder with predictions and a report.

    Returns:
        The report.

    Raises:
        InputError: The model, the hospital or the folder cannot be used, or patients of the
            hospital took part in the run.
        DataError: The hospital's data does not fit the model's study.
        ModelError: The model folder is damaged, or is no whole model.
    """
    from wardround.simulations.report.pages.evaluation_page import write_evaluation_page

    _check_out(request)
    folder = _model_folder(request)
    study = folder.study
    if request.subgroups is not None:
        study = with_changes(
            study,
            {"evaluation.subgroups": list(request.subgroups), "evaluation.bands": {}},
            origin=f"--subgroups {','.join(request.subgroups)}",
        )
    with tempfile.TemporaryDirectory(prefix="wardround-") as work:
        hospital = open_hospital(request.place, study, request.split, Path(work))
        notes = [*_seen_before(request, hospital, study), *hospital.notes]
        if study.data.covariates and study.data.covariate_scaling == "site":
            notes.append(_SCALED)
        hospital.cohort.prepare()
        notes += [*_unlike(folder, hospital), *hospital.cohort.notes]
        answers, rows = _answers(request, folder, hospital, study)
        facts = EvaluationFacts(
            wardround=wardround.__version__,
            command=request.command,
            run=str(request.run),
            model=folder.contract.name,
            model_digest=folder.digest,
            site=hospital.name,
            split=request.split,
            are_new=_NO_RUN not in notes,
            patients=hospital.cohort.patient_count,
            examinations=len(hospital.cohort),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            metrics=tuple(_values(answers, study, folder)),
            notes=tuple(dict.fromkeys(notes)),
        )
        new_folder(request.out, "choose another --out")
        try:
            _write(request.out, study, rows, hospital)
            text = json.dumps(asdict(facts), indent=2) + "\n"
            replace_file(request.out / EVALUATION, text, BY_UMASK, durable=False)
            return write_evaluation_page(request.out)
        except BaseException:  # told to stop, say: what is half written is no evaluation
            shutil.rmtree(request.out, ignore_errors=True)
            raise


def _check_out(request: EvaluationRequest) -> None:
    home, out = home_of(request.place), request.out.resolve()
    if out == home or home in out.parents:
        msg = (
            f"{request.out} is in the hospital's own folder, where nothing is written: choose "
            "another --out."
        )
        raise InputError(msg)
    if out.exists() and any(out.iterdir()):
        msg = f"{request.out} is not empty: choose another --out."
        raise InputError(msg)


def _model_folder(request: EvaluationRequest) -> ModelFolder:
    run = request.run
    if is_model_folder(run):
        return open_model_folder(run)
    models = run / "models"
    names = sorted(path.name for path in models.glob("*") if is_model_folder(path))
    if not names:
        msg = (
            f"{run} holds no finished model: give the folder of a finished run, or a model folder "
            "that it left below models/."
        )
        raise InputError(msg)
    if request.model not in names:
        raise InputError(known_names("model of this run", request.model, names))
    return open_model_folder(models / request.model)


def _seen_before(request: EvaluationRequest, hospital: Hospital, study: Study) -> tuple[str, ...]:
    if is_model_folder(request.run):
        # A model folder that lies where its run left it.
        run, model = request.run.resolve().parent.parent, request.run.name
    else:
        run, model = request.run, request.model
    if not (run / "run.json").is_file() or not (run / "sites").is_dir():
        return (_NO_RUN,)
    return require_new_patients(run, model, hospital.examinations, study)


def _unlike(folder: ModelFolder, hospital: Hospital) -> Iterator[str]:
    """Yield what the hospital's images differ in from those that the model was made for."""
    data, found = folder.study.data, dict[str, int]()
    if data.kind == "table":
        return
    examinations = hospital.cohort.examinations
    some = examinations[:: max(1, -(-len(examinations) // _LOOKED_AT))]
    for one in some:
        channels = fill_absent(
            [
                None if place is None else read_image(place, data.dimensions, data.colour)
                for place in one.images
            ]
        )
        for reason in reasons_outside(channels, folder.contract, data):
            kind = reason.partition(":")[0]
            found[kind] = found.get(kind, 0) + 1
    for reason, count in found.items():
        yield f"{count} of {len(some)} images that were looked at: {reason.rstrip('.')}."


class _Calibrated(nn.Module):
    """A network whose logits are divided by the model's temperature, as in a prediction."""

    def __init__(self, network: nn.Module, temperature: float) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature

    def forward(self, *inputs: Tensor) -> Tensor:
        found = self.network(*inputs)
        first: Tensor = found if isinstance(found, Tensor) else found[0]
        return first / self.temperature


def _answers(
    request: EvaluationRequest, folder: ModelFolder, hospital: Hospital, study: Study
) -> tuple[_Answered, _Rows]:
    device = device_for(request.device, study)
    choose_arithmetic(device, study)
    network = folder.network()
    if folder.contract.temperature is not None and not study.task.dense:
        network = _Calibrated(network, folder.contract.temperature)
    network = network.to(device).eval()
    place = Place(folder.contract.name, hospital.name, _SPLIT)
    if study.task.boxes:
        return _boxes(network, place, hospital, study)
    if study.task.dense:
        marked = segmented_cases(network, hospital.cohort, study, device, has_surfaces(study))
        rows = list(case_rows(place, marked, study))
        return masks_of(rows, study.data.classes[1:]), rows
    if study.task.outcome:
        answered = outcome_cases(network, hospital.cohort, study, device)
        if not np.isfinite(answered.estimates).all():
            raise InputError(_NO_NUMBERS)
        outcomes = list(outcome_rows(place, answered))
        return outcomes_of(outcomes, study.task.outcome), outcomes
    found = classified_cases(network, hospital.cohort, study, device)
    if not torch.isfinite(torch.from_numpy(found.scores)).all():
        raise InputError(_NO_NUMBERS)
    scores = Scores(found.rows, found.patients, found.scores, found.truth)
    return scores, list(score_rows(place, found, study))


def _boxes(
    network: nn.Module, place: Place, hospital: Hospital, study: Study
) -> tuple[Boxes, list[DetectionRow]]:
    cohort = hospital.cohort
    device = next(network.parameters()).device
    boxes = Boxes(cohort.patients.numpy(), found_cases(network, cohort, study, device))
    sums, classes = boxes.together(study), study.data.classes
    return boxes, list(detection_rows(place.model, place.site, len(cohort), sums, classes))


def _write(out: Path, study: Study, rows: _Rows, hospital: Hospital) -> None:
    (out / "study.toml").write_text(study.to_toml(), encoding="utf-8")
    if study.task.outcome:
        outcomes = [row for row in rows if isinstance(row, OutcomeRow)]
        write_table(out / OUTCOMES, outcomes, OutcomeRow)
    elif study.task.dense:
        write_table(out / CASES, [row for row in rows if isinstance(row, CaseRow)], CaseRow)
    elif study.task.boxes:
        counts = [row for row in rows if isinstance(row, DetectionRow)]
        write_table(out / DETECTIONS, counts, DetectionRow)
    else:
        scores = [row for row in rows if isinstance(row, ScoreRow)]
        write_table(out / PREDICTIONS, scores, ScoreRow)
    if study.evaluation.subgroups:
        groups = group_rows(hospital.name, _SPLIT, hospital.cohort, study)
        write_table(out / GROUPS, groups, GroupRow)


def _values(answers: _Answered, study: Study, folder: ModelFolder) -> Iterator[MetricValue]:
    if isinstance(answers, Boxes):
        for metric, i in box_intervals(answers, study).items():
            before = _in_the_run(folder, metric)
            yield MetricValue(metric, i.value, i.low, i.high, i.patients, before)
        return
    for metric in METRICS:
        found = measure(metric, answers, study.data.multi_label)
        if found is not None:
            i, before = found.interval, _in_the_run(folder, metric)
            yield MetricValue(metric, i.value, i.low, i.high, i.patients, before)
    if isinstance(answers, Scores):
        value = expected_calibration_error(answers, study.data.multi_label)
        nan = float("nan")
        patients = len(set(answers.patients.tolist()))
        yield MetricValue("ece", value, nan, nan, patients, nan)


def _in_the_run(folder: ModelFolder, metric: str) -> float:
    """Return what was measured where the model was trained: the mean over the run's hospitals."""
    values = [
        one.value
        for one in folder.measured
        if (one.metric, one.class_name) == (metric, "") and not one.of.startswith("all sites")
    ]
    return statistics.fmean(values) if values else float("nan")
