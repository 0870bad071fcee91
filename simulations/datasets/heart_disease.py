"""UCI Heart Disease: a table of four hospitals, by the protocol of FLamby's Fed-Heart-Disease.

The protocol (Ogier du Terrail et al. 2022, NeurIPS Datasets and Benchmarks, appendix): the
columns slope, ca and thal are left out, then every patient with a missing value; any diagnosis
above 0 counts as disease; 66 % of each hospital's patients train, with the diagnosis in equal
shares, the rest test.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wardround.common.errors import InputError
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import (
    DataRequest,
    DatasetEntry,
    DatasetOption,
    Examinations,
    PublicExamination,
)
from wardround.simulations.datasets.locations import find_folder, given_path, not_found

HOSPITALS = {"cleveland": 303, "hungarian": 294, "switzerland": 123, "va": 200}
FEATURES = (
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak",
)  # fmt: skip
CLASSES = ("healthy", "disease")
_COLUMNS = 14  # the features, then slope, ca, thal and the diagnosis 0-4
_CATEGORIES = ("cp", "restecg")
_TRAIN_FRACTION = 0.66  # FLamby's split (du Terrail et al. 2022)


def _load(request: DataRequest) -> Examinations:
    folder = _find(request)
    _check_answer(request.study)
    rows: list[PublicExamination] = []
    for number, hospital in enumerate(HOSPITALS):
        patients = _patients(folder / f"processed.{hospital}.data", hospital)
        generator = np.random.default_rng([request.study.simulation.seed, number])
        train = _stratified(generator, [row.label for row in patients])
        rows += [
            PublicExamination(
                patient=row.patient,
                label=_label(row, request.study),
                natural_site=hospital,
                split="train" if item in train else "test",
                covariates=row.covariates,
            )
            for item, row in enumerate(patients)
        ]
    return Examinations(tuple(rows), ENTRY.facts("heart-disease"))


def _find(request: DataRequest) -> Path:
    if request.text("folder"):
        return given_path(request.text("folder"), request.data_root)
    names = ("uci_heart_disease", "heart_disease", "heart-disease", "heart", "fed_heart")
    found = find_folder(names, ("processed.cleveland.data",), request.data_root)
    if found is None:
        remedy = (
            "Download it from https://archive.ics.uci.edu/dataset/45/heart+disease and unpack it "
            "there, or give simulation.options.folder."
        )
        refusal = not_found("Heart Disease", "processed.*.data", request.data_root, remedy)
        raise refusal
    return found


def _label(row: PublicExamination, study: Study) -> str:
    """Return the diagnosis, or the value that a regression is of."""
    return row.covariates[study.outcome.name] if study.task.outcome else row.label


def _check_answer(study: Study) -> None:
    if study.task.outcome:
        if study.outcome.name not in FEATURES:
            known = ", ".join(FEATURES)
            msg = f"data.outcome.name = {study.outcome.name!r} is no column: set one of {known}."
            raise InputError(msg)
        return
    if study.data.classes != CLASSES:
        msg = f"data.classes = {list(study.data.classes)} is not {list(CLASSES)}: set it so."
        raise InputError(msg)


def _patients(path: Path, hospital: str) -> list[PublicExamination]:
    """Return the complete patients of one hospital, in the order of the file."""
    try:
        with path.open(newline="", encoding="ascii") as stream:
            lines = [line for line in csv.reader(stream) if line]
    except FileNotFoundError:
        msg = f"{path} is missing: the data set is the four files processed.*.data."
        raise InputError(msg) from None
    except (OSError, UnicodeDecodeError, csv.Error):
        msg = f"{path} is not a readable table: fetch it again."
        raise InputError(msg) from None
    if len(lines) != HOSPITALS[hospital] or any(len(line) != _COLUMNS for line in lines):
        msg = (
            f"{path} has {len(lines)} rows, expected {HOSPITALS[hospital]} of {_COLUMNS} columns "
            "without a header. Use the file of UCI itself: many copies were changed."
        )
        raise InputError(msg)
    try:
        parsed = [_patient(f"{hospital}-{number}", line) for number, line in enumerate(lines)]
    except ValueError:
        msg = f"{path} holds a value that is no number: use the file of UCI itself."
        raise InputError(msg) from None
    return [patient for patient in parsed if patient is not None]


def _patient(name: str, line: Sequence[str]) -> PublicExamination | None:
    values = [value.strip() for value in line]
    kept = dict(zip(FEATURES, values, strict=False))
    if "?" in (*kept.values(), values[-1]):
        return None
    numbers = {key: float(value) for key, value in kept.items()}
    return PublicExamination(
        patient=name,
        label=CLASSES[int(float(values[-1]) > 0)],
        covariates={  # a category is written "4" in every hospital, in the files also "4.0"
            key: str(int(value)) if key in _CATEGORIES else repr(value)
            for key, value in numbers.items()
        },
    )


def _stratified(generator: np.random.Generator, labels: Sequence[str]) -> set[int]:
    """Draw floor(66 %) of the places, each class in its share (largest remainder first)."""
    wanted = int(_TRAIN_FRACTION * len(labels))
    members = {name: [i for i, label in enumerate(labels) if label == name] for name in CLASSES}
    shares = {name: wanted * len(places) / len(labels) for name, places in members.items()}
    counts = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(CLASSES, key=lambda name: counts[name] - shares[name])
    for name in by_remainder[: wanted - sum(counts.values())]:
        counts[name] += 1
    return {
        members[name][place]
        for name in CLASSES
        for place in generator.permutation(len(members[name]))[: counts[name]].tolist()
    }


ENTRY = DatasetEntry(
    title="UCI Heart Disease (as Fed-Heart-Disease)",
    licence="CC BY 4.0",
    citation=(
        "Janosi A, Steinbrunn W, Pfisterer M, Detrano R. Heart Disease. UCI Machine Learning "
        "Repository, 1989. Protocol: Ogier du Terrail J, et al. FLamby. NeurIPS 2022."
    ),
    homepage="https://archive.ics.uci.edu/dataset/45/heart+disease",
    modality="table",
    task="disease or not from 10 clinical values, or one of these; four natural sites",
    tasks=("classification", "regression"),
    load=_load,
    options={"folder": DatasetOption("", "a folder with the four files processed.*.data.")},
)
