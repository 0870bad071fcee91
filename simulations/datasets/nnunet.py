"""A folder as nnU-Net v2 has it: a file a channel, and what the labels mean in ``dataset.json``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wardround.common.errors import InputError
from wardround.common.study.study import Study
from wardround.simulations.datasets.examinations import (
    YOURS_TO_STATE,
    DataRequest,
    DatasetEntry,
    DatasetOption,
    Examinations,
    PublicExamination,
)
from wardround.simulations.datasets.locations import given_path

_IGNORE = "ignore"  # nnU-Net's name for voxels that nobody has annotated


@dataclass(frozen=True, slots=True)
class _Description:
    """What ``dataset.json`` says.

    Attributes:
        channels: Their names, in the order of the numbers in the files' names.
        labels: Names of the masks' labels, from 0 on.
        ignored: The label that stands for "not annotated"; None where there is none.
        ending: Of the files' names, with its dot.
        listed: Files of a case that are not named as usual, by case.
    """

    channels: tuple[str, ...]
    labels: tuple[str, ...]
    ignored: int | None
    ending: str
    listed: Mapping[str, Any]


def is_nnunet(folder: Path) -> bool:
    """Return whether a folder has a description in the manner of nnU-Net v2."""
    try:
        content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "channel_names" in content


def require_classes(names: Sequence[str], study: Study) -> None:
    """Check that the masks' labels are the study's classes, by name and in the same order.

    Args:
        names: From label 0 on; empty where nobody says them.

    Raises:
        InputError: They are others, more or fewer, or in another order.
    """
    if not names:
        return
    classes = study.data.classes
    if len(names) != len(classes):
        msg = (
            f"the masks have {len(names)} classes (background included), data.classes has "
            f"{len(classes)}: list all of them, in the order of dataset.json: {', '.join(names)}."
        )
        raise InputError(msg)
    other = [n for n, pair in enumerate(zip(names, classes, strict=True)) if not _alike(*pair)]
    if other:
        said = ", ".join(f"label {n} is {names[n]!r} and not {classes[n]!r}" for n in other[:5])
        msg = (
            f"the masks' labels are not data.classes: {said}. Write data.classes in the order of "
            f"dataset.json: {', '.join(names)}."
        )
        raise InputError(msg)


def _alike(name: str, other: str) -> bool:
    first, second = ("".join(filter(str.isalnum, one.casefold())) for one in (name, other))
    return first == second


def read_folder(folder: Path, study: Study) -> Examinations:
    """Return the training cases of a folder: a case is a patient.

    Raises:
        InputError: The folder or its description is not complete, or is not for this study.
    """
    description = _read(folder)
    require_classes(description.labels, study)
    _check_ignored(description, study)
    cases = _cases(folder, description)
    channels = [_as_the_study_writes(name, study) for name in description.channels]
    rows = tuple(
        PublicExamination(
            patient=case,
            images={name: str(path.resolve()) for name, path in zip(channels, images, strict=True)},
            mask=str(mask.resolve()),
        )
        for case, (images, mask) in sorted(cases.items())
    )
    return Examinations(rows, ENTRY.facts("nnunet"))


def _as_the_study_writes(channel: str, study: Study) -> str:
    return next((one for one in study.data.channels if _alike(channel, one)), channel)


def _check_ignored(description: _Description, study: Study) -> None:
    if description.ignored is None:
        return
    if getattr(study.data, "ignore_label", None) != description.ignored:
        msg = (
            f"the masks' label {description.ignored} means 'not annotated' (ignore), and the study "
            f"does not say so: write data.ignore_label = {description.ignored}, or map it."
        )
        raise InputError(msg)


def _read(folder: Path) -> _Description:
    path = folder / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        channels, labels = content["channel_names"], dict(content["labels"])
        ignored = labels.pop(_IGNORE, None)
        ordered = tuple(sorted(labels, key=lambda name: int(labels[name])))
        if [int(labels[name]) for name in ordered] != list(range(len(ordered))):
            raise ValueError
        return _Description(
            tuple(str(channels[key]) for key in sorted(channels, key=int)),
            ordered,
            None if ignored is None else int(ignored),
            str(content["file_ending"]),
            dict(content.get("dataset", {})),
        )
    except FileNotFoundError:
        msg = f"{folder} has no dataset.json: give a folder as nnU-Net has it (Dataset001_Name)."
        raise InputError(msg) from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        msg = (
            f"{path} is not a description that can be read: it needs channel_names, file_ending, "
            "and labels from 0 on, one number each (regions, which overlap, are not read)."
        )
        raise InputError(msg) from None


_Cases = dict[str, tuple[tuple[Path, ...], Path]]


def _cases(folder: Path, description: _Description) -> _Cases:
    """Return the images, one a channel, and the mask of each case.

    Raises:
        InputError: A case lacks one; no name is told, only how many.
    """
    cases = _listed(folder, description) or _by_name(folder, description)
    broken = sum(
        not all(path.is_file() for path in (*images, mask)) for images, mask in cases.values()
    )
    if broken or not cases:
        msg = (
            f"{folder}: {len(cases)} cases, of which {broken} lack a channel of "
            f"{len(description.channels)} or their mask: complete imagesTr and labelsTr."
        )
        raise InputError(msg)
    return cases


def _listed(folder: Path, description: _Description) -> _Cases:
    """Return the cases whose files ``dataset.json`` lists."""
    try:
        return {
            str(case): (tuple(folder / one for one in files["images"]), folder / files["label"])
            for case, files in description.listed.items()
        }
    except (TypeError, KeyError):
        msg = f"{folder}: dataset.json lists cases without images and label: write both."
        raise InputError(msg) from None


def _by_name(folder: Path, description: _Description) -> _Cases:
    """Return the cases by the names of files: ``case_0000.nii.gz`` has the mask ``case.nii.gz``."""
    ending, channels = description.ending, range(len(description.channels))
    images, labels = folder / "imagesTr", folder / "labelsTr"
    names = [path.name for path in _files(images) if path.name.endswith(ending)]
    stems = {name.removesuffix(ending).rpartition("_")[0] for name in names}
    masks = {
        path.name.removesuffix(ending) for path in _files(labels) if path.name.endswith(ending)
    }
    return {
        case: (
            tuple(images / f"{case}_{channel:04d}{ending}" for channel in channels),
            labels / f"{case}{ending}",
        )
        for case in stems | masks
        if case
    }


def _files(folder: Path) -> list[Path]:
    """Return the files of a folder, without the ``._`` twins that macOS leaves in an archive."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _load(request: DataRequest) -> Examinations:
    if not request.text("folder"):
        msg = (
            "simulation.data = 'nnunet' needs a folder: set simulation.options.folder to one as "
            "nnU-Net has it (Dataset001_Name)."
        )
        raise InputError(msg)
    return read_folder(given_path(request.text("folder"), request.data_root), request.study)


ENTRY = DatasetEntry(
    title="a folder in the manner of nnU-Net v2",
    licence=YOURS_TO_STATE,
    citation="",
    homepage="https://github.com/MIC-DKFZ/nnUNet",
    modality="any that a site can read, a file a channel",
    task="segmentation; sites from a split",
    tasks=("segmentation",),
    load=_load,
    options={"folder": DatasetOption("", "a folder with dataset.json, imagesTr and labelsTr.")},
    is_public=False,
)
