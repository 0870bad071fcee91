"""HAM10000: dermatoscopic images of four real sites, with diagnosis, lesion mask and box."""

import csv
from pathlib import Path

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

DIAGNOSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
_TABLES = ("selection.csv", "HAM10000_metadata.csv", "HAM10000_metadata")
_COLUMNS = ("lesion_id", "image_id", "dx", "age", "sex", "localization", "dataset")
_SIDES = ("top", "left", "bottom", "right")
_UNKNOWN = ("", "unknown")


def _load(request: DataRequest) -> Examinations:
    folder, study = _find(request), request.study
    table = _read_table(folder)
    images = _files(folder, ("images", "HAM10000_images*"), (".jpg", ".jpeg", ".png"))
    masks = _files(folder, ("masks", "*segmentations*"), (".png",))
    rows, absent = [], 0
    for line in table:
        name = line["image_id"]
        image, mask = images.get(name), masks.get(f"{name}_segmentation", "")
        if image is None or (study.study.task == "segmentation" and not mask):
            absent += 1
            continue
        if study.task.outcome and not _known(line["age"]):
            continue  # of a few percent nobody knows it
        rows.append(_examination(line, image, mask, study))
    if absent:
        msg = (
            f"{folder}: {absent} of {len(table)} rows of the table have no file in images/ "
            "(or masks/, for a segmentation): complete the folder."
        )
        raise InputError(msg)
    _check(tuple(rows), study)
    return Examinations(tuple(rows), ENTRY.facts("ham10000"))


def _find(request: DataRequest) -> Path:
    if request.text("folder"):
        return given_path(request.text("folder"), request.data_root)
    found = find_folder(("ham10000", "ham_10000", "ham"), _TABLES, request.data_root)
    if found is None:
        remedy = (
            "Download it from https://doi.org/10.7910/DVN/DBW86T (images, segmentations, "
            "metadata), unpack it there, or give simulation.options.folder."
        )
        refusal = not_found("HAM10000", "ham10000*/selection.csv", request.data_root, remedy)
        raise refusal
    return found


def _read_table(folder: Path) -> list[dict[str, str]]:
    path = next((folder / name for name in _TABLES if (folder / name).is_file()), None)
    if path is None:
        msg = f"{folder} has none of {', '.join(_TABLES)}: add the table of HAM10000."
        raise InputError(msg)
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error):
        msg = f"{path} is not a readable CSV table: fetch it again."
        raise InputError(msg) from None
    missing = [column for column in _COLUMNS if not lines or lines[0].get(column) is None]
    if missing:
        msg = (
            f"{path} lacks {', '.join(missing)}: use the table that names the source of each image."
        )
        raise InputError(msg)
    return lines


def _files(folder: Path, places: tuple[str, ...], endings: tuple[str, ...]) -> dict[str, str]:
    """Return files by stem, from every folder that matches."""
    return {
        path.stem: str(path.resolve())
        for pattern in places
        for place in sorted(folder.glob(pattern))
        if place.is_dir()
        for path in place.iterdir()
        if path.suffix.lower() in endings and not path.name.startswith(".")
    }


def _examination(line: dict[str, str], image: str, mask: str, study: Study) -> PublicExamination:
    sides = [line.get(side) or "" for side in _SIDES]
    return PublicExamination(
        patient=line["lesion_id"],
        images={"image": image},
        label=line["age"] if study.task.outcome else line["dx"],
        mask=mask,
        natural_site=line["dataset"],
        covariates={name: _known(line[name]) for name in ("age", "sex", "localization")},
        box=" ".join(sides) if all(sides) else "",
        boxes=_boxes(line, study) if study.task.column == "boxes" else "",
    )


def _boxes(line: dict[str, str], study: Study) -> str:
    """Return the lesion's box as a cell of a manifest: of its diagnosis, or of the only class."""
    top, left, bottom, right = (line.get(side) or "" for side in _SIDES)
    name = study.data.classes[0] if study.class_count == 1 else line["dx"]
    return f"{name} {left} {top} {right} {bottom}" if top and bottom else ""


def _known(value: str) -> str:
    return "" if value in _UNKNOWN else value


def _check(rows: tuple[PublicExamination, ...], study: Study) -> None:
    if study.task.outcome:
        if study.outcome.name != "age":
            msg = (
                f"data.outcome.name = {study.outcome.name!r} is not in the table: set it to 'age'."
            )
            raise InputError(msg)
        return
    _check_diagnoses(rows, study)


def _check_diagnoses(rows: tuple[PublicExamination, ...], study: Study) -> None:
    strange = len({row.label for row in rows} - set(DIAGNOSES))
    if strange:
        msg = f"the table holds {strange} values of dx that HAM10000 does not know: fetch it again."
        raise InputError(msg)
    if study.task.restores:
        return
    if study.task.column == "boxes" and not all(row.boxes for row in rows):
        msg = (
            "the table has no columns top, left, bottom and right: use a table with a box of each "
            "lesion, or set study.task to classification or segmentation."
        )
        raise InputError(msg)
    if study.task.column != "mask" and study.class_count > 1:
        unlisted = {row.label for row in rows} - set(study.data.classes)
        if unlisted:
            msg = f"data.classes lacks {', '.join(sorted(unlisted))}: set {list(DIAGNOSES)}."
            raise InputError(msg)
    elif study.task.column == "mask" and study.class_count != 2:
        msg = f"the masks have 2 classes, data.classes {study.class_count}: set background, lesion."
        raise InputError(msg)


ENTRY = DatasetEntry(
    title="HAM10000",
    licence="CC BY-NC 4.0",
    citation=(
        "Tschandl P, Rosendahl C, Kittler H. The HAM10000 dataset, a large collection of "
        "multi-source dermatoscopic images of common pigmented skin lesions. Scientific Data 2018; "
        "5:180161. Masks: Tschandl P, et al. Nature Medicine 2020; 26:1229."
    ),
    homepage="https://doi.org/10.7910/DVN/DBW86T",
    modality="dermatoscopy (colour)",
    task="7 diagnoses, the lesion's mask or box, or the patient's age; four natural sites",
    tasks=("classification", "detection", "segmentation", "regression", "pretraining"),
    load=_load,
    options={"folder": DatasetOption("", "a folder with images/, masks/ and the table.")},
)
