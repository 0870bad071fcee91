"""Every public data set by name: the one place a study's ``simulation.data`` is looked up."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from wardround.common.errors import InputError, known_names
from wardround.common.files.packages.references import reference_of
from wardround.common.study.study import Study
from wardround.simulations.datasets import (
    bccd,
    brain_tissue,
    decathlon,
    ham10000,
    heart_disease,
    manifest_file,
    medmnist,
    nnunet,
)
from wardround.simulations.datasets.examinations import (
    DataRequest,
    DatasetEntry,
    DatasetOption,
    Examinations,
    OptionValue,
    PublicExamination,
    resolve_options,
)
from wardround.simulations.datasets.locations import data_root_or_environment

DATASETS: dict[str, DatasetEntry] = {
    "brain-tissue": brain_tissue.ENTRY,
    "bccd": bccd.ENTRY,
    "medmnist": medmnist.ENTRY,
    "decathlon": decathlon.ENTRY,
    "ham10000": ham10000.ENTRY,
    "heart-disease": heart_disease.ENTRY,
    "nnunet": nnunet.ENTRY,
    "folder": manifest_file.ENTRY,
}

_LIMIT = DatasetOption(0, "how many patients to take, drawn by simulation.seed; 0 takes all.")


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """One line of a listing."""

    name: str
    title: str
    modality: str
    task: str
    licence: str


def describe_datasets() -> tuple[DatasetSummary, ...]:
    """Return what the catalogue holds, in its order."""
    return tuple(
        DatasetSummary(name, entry.title, entry.modality, entry.task, entry.licence)
        for name, entry in DATASETS.items()
    )


def dataset_facts(name: str) -> dict[str, str]:
    """Return everything known about a data set without reading it, options included.

    Raises:
        InputError: The name is unknown.
    """
    entry = _entry(name)
    described = {
        f"option {key}": f"{option.meaning} Default: {option.default!r}."
        for key, option in _options_of(entry).items()
    }
    return {
        **entry.facts(name).as_text(),
        "modality": entry.modality,
        "task": entry.task,
        **described,
    }


def load_dataset(
    name: str, options: Mapping[str, OptionValue], data_root: Path | None, study: Study
) -> Examinations:
    """Return the examinations of a data set as a study needs them; no pixel is copied.

    Args:
        name: A key of :data:`DATASETS`.
        options: The study's ``[simulation.options]``.
        data_root: Folder that data sets are looked for in; ``WARDROUND_DATA`` if None.
        study: Task, classes, channels and covariates that the data must serve.

    Raises:
        InputError: The name or an option is unknown, the data is absent, broken, or cannot serve
            the study; says what was looked for and what to do.
    """
    entry = _entry(name)
    task = study.study.task
    if task not in entry.tasks:
        fitting = ", ".join(sorted(key for key, e in DATASETS.items() if task in e.tasks))
        msg = f"simulation.data = {name!r} does not serve {task}: choose one of {fitting}."
        raise InputError(msg)
    resolved = resolve_options(_options_of(entry), options)
    request = DataRequest(resolved, data_root_or_environment(data_root), study)
    examinations = entry.load(request)
    rows = examinations.rows
    if "patients" not in entry.options:
        rows = _limited(rows, request)
    return replace(examinations, rows=_as_the_study_calls_them(rows, study))


def _entry(name: str) -> DatasetEntry:
    if reference_of(name) is not None:
        return manifest_file.registered_entry(name)
    if name not in DATASETS:
        raise InputError(known_names("data set", name, DATASETS))
    return DATASETS[name]


def _options_of(entry: DatasetEntry) -> Mapping[str, DatasetOption]:
    """Every data set can be cut down; one that makes its patients counts them itself."""
    return entry.options if "patients" in entry.options else {**entry.options, "patients": _LIMIT}


def _limited(
    rows: tuple[PublicExamination, ...], request: DataRequest
) -> tuple[PublicExamination, ...]:
    wanted = request.number("patients")
    patients = sorted({row.patient for row in rows})
    if not 0 < wanted < len(patients):
        return rows
    import numpy as np

    generator = np.random.default_rng(request.study.simulation.seed)
    chosen = set(generator.permutation(np.array(patients))[:wanted].tolist())
    return tuple(row for row in rows if row.patient in chosen)


def _with_class_names(
    rows: tuple[PublicExamination, ...], study: Study
) -> tuple[PublicExamination, ...]:
    """Give labels that are written as an index the name of their class."""
    classes = study.data.classes
    names = {str(index): name for index, name in enumerate(classes) if str(index) not in classes}
    if study.data.multi_label or not any(row.label in names for row in rows):
        return rows
    return tuple(replace(row, label=names.get(row.label, row.label)) for row in rows)


def _as_the_study_calls_them(
    rows: tuple[PublicExamination, ...], study: Study
) -> tuple[PublicExamination, ...]:
    """Rename the only channel, and refuse what the study asks for and the data does not hold."""
    if not rows:
        msg = "the data set holds no examinations: give another folder or file."
        raise InputError(msg)
    rows = _with_class_names(rows, study)
    held = set(rows[0].covariates)
    for covariate in study.data.covariates:
        if covariate.name not in held:
            raise InputError(known_names("covariate", covariate.name, held))
    if study.data.kind == "table":
        return rows
    channels = study.data.channels
    offered = tuple(dict.fromkeys(channel for row in rows for channel in row.images))
    if len(channels) == 1 and len(offered) == 1 and channels != offered:
        return tuple(replace(row, images={channels[0]: row.images[offered[0]]}) for row in rows)
    for channel in channels:
        if channel not in offered:
            raise InputError(known_names("image channel", channel, offered))
    return rows
