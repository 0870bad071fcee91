"""Medical Segmentation Decathlon: ten tasks of volumes in NIfTI, read where they lie."""

import json
import shutil
import tarfile
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wardround.client.data.manifest.cells import channel_cells
from wardround.common.errors import InputError, known_names
from wardround.common.study.study import Study
from wardround.simulations.datasets import nnunet
from wardround.simulations.datasets.examinations import (
    DataRequest,
    DatasetEntry,
    DatasetOption,
    Examinations,
    PublicExamination,
)
from wardround.simulations.datasets.locations import (
    Download,
    cache_folder,
    fetch,
    find_folder,
    given_path,
    not_found,
)

_URL = "https://msd-for-monai.s3-us-west-2.amazonaws.com/{task}.tar"
TASKS: dict[str, str] = {  # the MD5 of each tar, as MONAI's DecathlonDataset lists it
    "Task01_BrainTumour": "240a19d752f0d9e9101544901065d872",
    "Task02_Heart": "06ee59366e1e5124267b774dbd654057",
    "Task03_Liver": "a90ec6c4aa7f6a3d087205e23d4e6397",
    "Task04_Hippocampus": "9d24dba78a72977dbd1d2e110310f31b",
    "Task05_Prostate": "35138f08b1efaef89d7424d2bcc928db",
    "Task06_Lung": "8afd997733c7fc0432f71255ba4e52dc",
    "Task07_Pancreas": "4f7080cfca169fa8066d17ce6eb061e4",
    "Task08_HepaticVessel": "641d79e80ec66453921d997fbf12a29c",
    "Task09_Spleen": "410d4a301da4e5b2f6f86ec3ddba524e",
    "Task10_Colon": "bad7a188931dc2f6acf72b08eb6202d0",
}
_FOLDER_PAIRS = (("imagesTr", "labelsTr"), ("images", "labels"))
_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True, slots=True)
class _Description:
    """What ``dataset.json`` says; empty where there is none.

    Attributes:
        labels: Names of the masks' labels, from 0 on.
    """

    labels: tuple[str, ...] = ()
    modalities: int = 1


def _load(request: DataRequest) -> Examinations:
    folder = _find(request)
    if nnunet.is_nnunet(folder):
        return nnunet.read_folder(folder, request.study)
    description = _read_description(folder)
    _check(description, request.study)
    channels = request.study.data.channels
    count = len(channels)

    def cells(image: str) -> tuple[str, ...]:
        return (image,) if count == 1 else channel_cells(image, count)

    rows = tuple(
        PublicExamination(
            patient=_stem(image),
            images=dict(zip(channels, cells(str(image)), strict=True)),
            mask=str(label),
        )
        for image, label in _pairs(folder)
    )
    task = next((name for name in TASKS if name == folder.name), "")
    if request.text("folder") and not task:
        return Examinations(rows, ENTRY.own_facts("decathlon"))
    facts = ENTRY.facts("decathlon")
    return Examinations(rows, replace(facts, title=f"{facts.title} {task}") if task else facts)


def _find(request: DataRequest) -> Path:
    if request.text("folder"):
        folder = given_path(request.text("folder"), request.data_root)
        if not any(_paired(folder)):
            msg = f"{folder} has no images/ and labels/ (or imagesTr/ and labelsTr/): give another."
            raise InputError(msg)
        return folder
    task = request.text("task")
    if task not in TASKS:
        raise InputError(known_names("Decathlon task", task, TASKS))
    organ = task.partition("_")[2].lower()
    markers = [f"{images}/*.nii*" for images, _ in _FOLDER_PAIRS]
    names = (task, f"msd_{organ}", f"decathlon_{organ}", organ)
    found = find_folder(names, markers, request.data_root)
    if found is not None:
        return found
    if not request.options["download"]:
        remedy = (
            f"Download {task}.tar from http://medicaldecathlon.com and unpack it there, "
            "or set simulation.options.download = true."
        )
        refusal = not_found(f"Decathlon {task}", ", ".join(names), request.data_root, remedy)
        raise refusal
    return _downloaded(task)


def _downloaded(task: str) -> Path:
    """Fetch and unpack a task into the cache, where the next search finds it."""
    tar = fetch(Download(_URL.format(task=task), TASKS[task], f"{task}.tar"))
    folder = cache_folder() / task
    temporary = Path(tempfile.mkdtemp(dir=cache_folder()))
    try:
        with tarfile.open(tar) as archive:
            archive.extractall(temporary, filter="data")
        (temporary / task).rename(folder)
    except (OSError, tarfile.TarError) as error:
        msg = f"cannot unpack {tar} ({type(error).__name__}): remove it and try again."
        raise InputError(msg) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _read_description(folder: Path) -> _Description:
    path = folder / "dataset.json"
    if not path.exists():
        return _Description()
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        labels: dict[str, str] = content.get("labels", {})
        ordered = tuple(str(labels[key]) for key in sorted(labels, key=int))
        return _Description(ordered, len(content.get("modality", {"0": ""})))
    except (OSError, ValueError, TypeError, AttributeError):
        msg = f"{path} is not a Decathlon description: fetch it again, or remove it."
        raise InputError(msg) from None


def _check(description: _Description, study: Study) -> None:
    if description.modalities != len(study.data.channels):
        msg = (
            f"the images hold {description.modalities} modalities, data.channels has "
            f"{len(study.data.channels)}: list all of them, in the order of dataset.json."
        )
        raise InputError(msg)
    nnunet.require_classes(description.labels, study)


def _paired(folder: Path) -> list[tuple[Path, Path]]:
    """Return the pairs of folders that are there."""
    return [
        (folder / images, folder / labels)
        for images, labels in _FOLDER_PAIRS
        if (folder / images).is_dir() and (folder / labels).is_dir()
    ]


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return images with their labels, sorted by name.

    Raises:
        InputError: An image has no label or a label no image; no name is told, only how many.
    """
    images_folder, labels_folder = _paired(folder)[0]
    images, labels = _volumes(images_folder), _volumes(labels_folder)
    alone = len(images.keys() ^ labels.keys())
    if alone or not images:
        msg = (
            f"{folder}: {len(images)} images and {len(labels)} masks, of which {alone} have no "
            "partner of the same name: complete the folder."
        )
        raise InputError(msg)
    return [(images[name], labels[name]) for name in sorted(images)]


def _volumes(folder: Path) -> dict[str, Path]:
    """Return volumes by name, without the ``._`` twins that macOS leaves in an archive."""
    return {
        _stem(path): path.resolve()
        for path in folder.iterdir()
        if path.name.endswith(_ENDINGS) and not path.name.startswith(".")
    }


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


ENTRY = DatasetEntry(
    title="Medical Segmentation Decathlon",
    licence="CC BY-SA 4.0",
    citation=(
        "Antonelli M, Reinke A, Bakas S, et al. The Medical Segmentation Decathlon. "
        "Nature Communications 2022; 13:4128."
    ),
    homepage="http://medicaldecathlon.com",
    modality="MR and CT volumes",
    task="segmentation of organs and tumours in 3D",
    tasks=("segmentation",),
    load=_load,
    options={
        "task": DatasetOption("Task04_Hippocampus", "which task, e.g. Task09_Spleen."),
        "folder": DatasetOption("", "a folder laid out as a Decathlon task, instead of task."),
        "download": DatasetOption(
            default=True, meaning="fetch the task where it is not on this machine (up to 27 GB)."
        ),
    },
)
