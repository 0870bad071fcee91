"""BCCD: blood smears under a microscope, with a box about every cell; no hospitals of their own."""

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

CELLS = ("RBC", "WBC", "Platelets")
PARTS = {"train": "train", "val": "validation", "test": "test"}
_LISTS = Path("ImageSets") / "Main"
_MARK = "Annotations/BloodImage_*.xml"


def _load(request: DataRequest) -> Examinations:
    folder = _find(request)
    folder = folder if (folder / _LISTS).is_dir() else folder / "BCCD"
    parts = {name: _listed(folder, name) for name in PARTS}
    absent = sum(
        not path.is_file() for names in parts.values() for n in names for path in _files(folder, n)
    )
    if absent:
        msg = (
            f"{folder} lacks {absent} files of JPEGImages/ or Annotations/ that ImageSets/Main "
            "lists: complete the folder."
        )
        raise InputError(msg)
    rows = tuple(
        _examination(folder, name, part, request.study)
        for part, names in parts.items()
        for name in names
    )
    return Examinations(rows, ENTRY.facts("bccd"), (_NOTE,))


_NOTE = (
    "the photographs of BCCD name no patient: each counts as one, and its own split into training, "
    "validation and test is kept within each site"
)


def _find(request: DataRequest) -> Path:
    if request.text("folder"):
        return given_path(request.text("folder"), request.data_root)
    found = find_folder(("bccd",), (_MARK, f"BCCD/{_MARK}"), request.data_root)
    if found is None:
        remedy = (
            "Fetch https://github.com/Shenggan/BCCD_Dataset, unpack it there, or give "
            "simulation.options.folder."
        )
        refusal = not_found("BCCD", f"bccd*/BCCD/{_MARK}", request.data_root, remedy)
        raise refusal
    return found


def _listed(folder: Path, part: str) -> list[str]:
    path = folder / _LISTS / f"{part}.txt"
    try:
        names = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        msg = f"{path} is no list of images: give the folder BCCD of the data set."
        raise InputError(msg) from None
    if not names or any("/" in name or "\\" in name for name in names):
        msg = f"{path} is no list of images: fetch the data set again."
        raise InputError(msg)
    return names


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / "JPEGImages" / f"{name}.jpg", folder / "Annotations" / f"{name}.xml"


def _examination(folder: Path, name: str, part: str, study: Study) -> PublicExamination:
    image, annotation = _files(folder, name)
    whole = set(study.data.classes) >= set(CELLS)
    return PublicExamination(
        patient=name,
        images={"image": str(image)},
        split=PARTS[part],
        boxes=str(annotation) if whole else _only(annotation, study.data.classes),
    )


def _only(annotation: Path, classes: tuple[str, ...]) -> str:
    """Return the boxes of some kinds of cells as a cell of a manifest; the others are no thing."""
    from wardround.client.data.reading.boxes.voc import read_voc

    strange = [name for name in classes if name not in CELLS]
    if strange:
        msg = f"data.classes names {', '.join(strange)}: BCCD has {', '.join(CELLS)}."
        raise InputError(msg)
    found = read_voc(annotation, 2)
    boxes = [
        f"{name} {x0:g} {y0:g} {x1:g} {y1:g}"
        for name, (y0, x0, y1, x1) in zip(found.names, found.corners, strict=True)
        if name in classes
    ]
    return "; ".join(boxes) or "none"


ENTRY = DatasetEntry(
    title="BCCD",
    licence="MIT",
    citation=(
        "Shenggan, cosmicad, akshaylamba. BCCD Dataset: blood cell count and detection. 2017. "
        "https://github.com/Shenggan/BCCD_Dataset"
    ),
    homepage="https://github.com/Shenggan/BCCD_Dataset",
    modality="microscopy of blood smears (colour)",
    task="boxes about red cells, white cells and platelets; no natural sites",
    tasks=("detection",),
    load=_load,
    options={"folder": DatasetOption("", "a folder with JPEGImages/, Annotations/, ImageSets/.")},
)
