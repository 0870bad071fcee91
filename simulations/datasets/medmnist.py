"""MedMNIST: small 2D and 3D images of many kinds, one ``.npz`` a set, read where they lie."""

import hashlib
import tomllib
import zipfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import InputError, known_names
from wardround.common.study.registry import NO_CLASS
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import (
    DataRequest,
    DatasetEntry,
    DatasetOption,
    Examinations,
    PublicExamination,
)
from wardround.simulations.datasets.locations import Download, cache_folder, fetch, given_path

_ZENODO = "https://zenodo.org/records/10519652/files/{file}?download=1"
_SPLITS = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True, slots=True)
class MedmnistSet:
    """What is published about one set; ``md5`` by image size."""

    title: str
    licence: str
    classes: tuple[str, ...]
    multi_label: bool
    md5: dict[int, str]


@cache
def known_sets() -> dict[str, MedmnistSet]:
    """Return the published sets by name."""
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {
        name: MedmnistSet(
            title=row["title"],
            licence=row["licence"],
            classes=tuple(row["classes"]),
            multi_label=row["multi_label"],
            md5={int(size): digest for size, digest in row["md5"].items()},
        )
        for name, row in table.items()
    }


def _load(request: DataRequest) -> Examinations:
    path, known = _find(request)
    study = request.study
    classes = _class_names(known, study)
    several = study.data.multi_label if known is None else known.multi_label
    rows: list[PublicExamination] = []
    for split, ours in _SPLITS.items():
        labels = _labels(path, split, len(classes), multi_label=several)
        rows += [
            PublicExamination(
                patient=f"{split}-{item}",
                images={"image": f"{path}#{split}_images#{item}"},
                label=_label_text(label, classes, multi_label=several),
                split=ours,
            )
            for item, label in enumerate(labels)
        ]
    if known is None:  # a file in their layout, by another name
        facts = replace(ENTRY.own_facts("medmnist"), md5=_md5(path))
    else:
        published = replace(ENTRY.facts("medmnist"), title=known.title, licence=known.licence)
        facts = replace(published, md5=_md5(path))
    note = "MedMNIST names no patients: every image counts as a patient of its own."
    return Examinations(tuple(rows), facts, (note,))


def _find(request: DataRequest) -> tuple[Path, MedmnistSet | None]:
    """Return the file, and what is known about the set its name says it is."""
    sets = known_sets()
    if request.text("file"):
        path = given_path(request.text("file"), request.data_root)
        begins = [name for name in sets if path.name.lower().startswith(name)]
        return path, sets[begins[0]] if begins else None
    name, size = request.text("name").lower(), request.number("size")
    if name not in sets:
        raise InputError(known_names("MedMNIST set", request.text("name"), sets))
    if size not in sets[name].md5:
        sizes = ", ".join(str(known) for known in sets[name].md5)
        msg = f"{name} is not published at size {size}: set simulation.options.size to {sizes}."
        raise InputError(msg)
    return _on_this_machine(name, size, request.data_root) or _download(name, size), sets[name]


def _on_this_machine(name: str, size: int, data_root: Path | None) -> Path | None:
    """Look for ``NAME*.npz``, the exact name first; other sizes carry theirs in the name."""
    stem = name if size == 28 else f"{name}_{size}"
    others = () if size != 28 else ("_64", "_128", "_224")
    for root in (data_root, cache_folder() / "downloads"):
        if root is None or not root.is_dir():
            continue
        found = [*root.glob(f"{stem}*.npz"), *root.glob(f"*/{stem}*.npz")]
        fitting = [p for p in found if not any(p.stem.startswith(name + other) for other in others)]
        if fitting:
            return min(fitting, key=lambda p: (p.stem != stem, str(p))).resolve()
    return None


def _download(name: str, size: int) -> Path:
    file = f"{name}.npz" if size == 28 else f"{name}_{size}.npz"
    return fetch(Download(_ZENODO.format(file=file), known_sets()[name].md5[size], file))


def _class_names(known: MedmnistSet | None, study: Study) -> tuple[str, ...]:
    """Return the class of each index; the study may list a known set's classes in any order."""
    if known is None or study.task.restores:
        return study.data.classes if known is None else known.classes
    if set(known.classes) != set(study.data.classes):
        msg = (
            f"data.classes = {list(study.data.classes)} are not those of {known.title}: "
            f"set data.classes = {list(known.classes)}."
        )
        raise InputError(msg)
    if known.multi_label != study.data.multi_label:
        wanted = str(known.multi_label).lower()
        msg = f"data.multi_label does not fit {known.title}: set data.multi_label = {wanted}."
        raise InputError(msg)
    return known.classes


def _labels(path: Path, split: str, classes: int, *, multi_label: bool) -> NDArray[np.int64]:
    """Return a split's labels, ``(N,)`` or ``(N, K)``, checked against its images."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            labels = np.asarray(arrays[f"{split}_labels"]).astype(np.int64)
        images = _shape_in_archive(path, f"{split}_images")
    except KeyError:
        msg = (
            f"{path.name} has no {split}_images and {split}_labels, so it is not a MedMNIST file: "
            "give another in simulation.options.file."
        )
        raise InputError(msg) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        msg = f"{path.name} is not a readable .npz file: fetch it again."
        raise InputError(msg) from None
    if not multi_label:
        labels = labels.reshape(len(labels), -1)
    width = classes if multi_label else 1
    if labels.ndim != 2 or labels.shape[1] != width or images[0] != len(labels):
        msg = (
            f"{path.name}: {split}_images has shape {images} and {split}_labels {labels.shape}, "
            f"where {width} labels an image were expected. Check data.multi_label and data.classes."
        )
        raise InputError(msg)
    top = 1 if multi_label else classes - 1
    if labels.size and not 0 <= labels.min() <= labels.max() <= top:
        msg = (
            f"{path.name}: {split}_labels go from {labels.min()} to {labels.max()}, expected "
            f"0 to {top}. List as many data.classes as the set has."
        )
        raise InputError(msg)
    return labels if multi_label else labels[:, 0]


def _shape_in_archive(path: Path, name: str) -> tuple[int, ...]:
    """Return an array's shape from its header alone: a set of volumes may be gigabytes."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, _ = read(stream)
    return tuple(shape)


def _label_text(label: NDArray[np.int64], classes: tuple[str, ...], *, multi_label: bool) -> str:
    if not multi_label:
        return classes[int(label)]
    present = [name for name, value in zip(classes, label, strict=True) if value]
    return ";".join(present) or NO_CLASS


def _md5(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


ENTRY = DatasetEntry(
    title="MedMNIST v2",
    licence="CC BY 4.0 (DermaMNIST: CC BY-NC 4.0)",
    citation=(
        "Yang J, Shi R, Wei D, et al. MedMNIST v2: a large-scale lightweight benchmark for 2D and "
        "3D biomedical image classification. Scientific Data 2023; 10:41."
    ),
    homepage="https://medmnist.com",
    modality="X-ray, OCT, CT, ultrasound, microscopy, dermatoscopy, ...",
    task="classification of small images and volumes, single- or multi-label",
    tasks=("classification", "pretraining"),
    load=_load,
    options={
        "name": DatasetOption("pneumoniamnist", "which set, e.g. pneumoniamnist or organmnist3d."),
        "size": DatasetOption(28, "edge of the published images: 28, 64, 128 or 224."),
        "file": DatasetOption("", "an .npz file laid out as MedMNIST's, instead of name."),
    },
)
