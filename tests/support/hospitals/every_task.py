"""Two tiny hospitals whose patients have all that a task may ask for, and a study of each.

The second one, ``south``, has no image of the channel ``second`` and nobody's age.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from wardround.common.study.loading import parse_study
from wardround.common.study.study import Study

SITES = ("north", "south")
PATIENTS = 28  # of both hospitals
SIDE = 24
_SPLITS = ("train", "train", "train", "validation", "validation", "test", "test")
_LACKING = "south"
# What a manifest calls what is predicted: a column "label" would be read before two of a time.
_PICTURES, _VOLUMES, _TIMES = "pictures", "volumes", "times"
MODES: dict[str, dict[str, Any]] = {
    "none": {},
    "patient": {"mode": "patient", "noise_multiplier": 1.0, "sampling_rate": 0.5},
    "site": {"mode": "site", "noise_multiplier": 0.5},
}
Content = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A task, or an option of one.

    Attributes:
        manifest: Which of the hospitals' tables it reads.
        content: Of the study; what all have in common is added.
        refused: Why a mode of privacy does not fit, in words of the refusal.
    """

    task: str
    data: Content
    model: Content
    manifest: str = _PICTURES
    training: tuple[tuple[str, Any], ...] = ()
    federation: tuple[tuple[str, Any], ...] = ()
    evaluation: tuple[tuple[str, Any], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


_CLASSES = ["0", "1"]
_PICTURE: Content = {"size": [SIDE, SIDE]}
_TABLE: Content = {"kind": "table", "covariates": [{"name": "weight", "mean": 80, "scale": 10}]}
_AGE: Content = {"name": "age", "mean": 60, "scale": 10}
_TWO: Content = {"channels": ["image", "second"]}
_SMALL: Content = {"network": "small-cnn", "features": [4, 4], "normalisation": "group"}
_MLP: Content = {"network": "mlp", "features": [4], "normalisation": "layer"}
_UNET: Content = {"network": "unet", "features": [2, 4], "normalisation": "instance"}
_BOXES: Content = {"network": "retinanet", "features": [4, 4, 4]}
_ALIKE: Content = {"bias_correction": True, "landmarks": [[20 * i + 5 for i in range(11)]]}
_TIME: Content = {"outcome": {"name": "death", "unit": "days", "times": [100, 300, 1000]}}
_FITTED: Content = {
    "features": ["weight", "height"],
    "means": [80, 170],
    "effects": [[], []],
    "sites": [
        {"name": "north", "shifts": [3, -2], "scales": [1.2, 1]},
        {"name": "south", "shifts": [-3, 2], "scales": [0.8, 1]},
    ],
}

CASES: dict[str, Case] = {
    "detection": Case("detection", {**_PICTURE, "classes": _CLASSES}, _BOXES),
    "detection in volumes": Case(
        "detection",
        {"dimensions": 3, "size": [16, 16, 16], "classes": _CLASSES},
        _BOXES,
        _VOLUMES,
        (("loss", "hard-negative-giou"),),
    ),
    "regression": Case(
        "regression",
        {**_TABLE, "outcome": {"name": "grade", "range": [0, 3]}},
        _MLP,
        training=(("loss", "huber"),),
    ),
    "regression of images": Case(
        "regression", {**_PICTURE, "outcome": {"name": "grade", "range": [0, 3]}}, _SMALL
    ),
    "survival": Case("survival", {**_TABLE, **_TIME}, _MLP, _TIMES),
    "survival of images": Case("survival", {**_PICTURE, **_TIME}, _SMALL, _TIMES),
    "survival by Cox": Case(
        "survival",
        {**_TABLE, **_TIME},
        _MLP,
        _TIMES,
        (("loss", "cox"),),
        refused=(("patient", "depends on all others at risk"),),
    ),
    "pretraining": Case("pretraining", _PICTURE, _SMALL),
    "late fusion": Case(
        "classification",
        {
            **_PICTURE,
            **_TWO,
            "classes": _CLASSES,
            "covariates": [_AGE],
            "optional": ["second", "age"],
        },
        {**_SMALL, "fusion": "late"},
        training=(("modality_dropout", 0.3),),
    ),
    "a channel that is missing": Case(
        "segmentation",
        {**_PICTURE, **_TWO, "classes": _CLASSES, "optional": ["second"]},
        {**_UNET, "fusion": "intermediate"},
        training=(("modality_dropout", 0.3),),
    ),
    "harmonised images": Case(
        "classification", {**_PICTURE, "classes": _CLASSES, "harmonisation": _ALIKE}, _SMALL
    ),
    "ComBat": Case(
        "classification",
        {
            "kind": "table",
            "classes": _CLASSES,
            "covariates": [
                {"name": "weight", "mean": 80, "scale": 10},
                {"name": "height", "mean": 170, "scale": 10},
            ],
            "combat": _FITTED,
        },
        _MLP,
        refused=(
            ("patient", "come from the patients without noise"),
            ("site", "come from the patients without noise"),
        ),
    ),
    "frozen layers": Case(
        "classification", {**_PICTURE, "classes": _CLASSES}, {**_SMALL, "frozen": ["0.*"]}
    ),
    "statistics of the test images": Case(
        "classification",
        {**_PICTURE, "classes": _CLASSES},
        {**_SMALL, "normalisation": "batch", "test_time_statistics": 0.1},
        refused=(
            ("patient", "mixes the patients of a batch"),
            ("site", "averages running variances"),
        ),
    ),
    "small features": Case(
        "classification",
        {**_PICTURE, "classes": _CLASSES},
        _SMALL,
        federation=(("objective", "small-features"),),
        refused=(("patient", "adds features of a batch to its loss"),),
    ),
    "covariances of all hospitals": Case(
        "classification",
        {**_PICTURE, "classes": _CLASSES},
        _SMALL,
        federation=(("objective", "coral"), ("rounds", 2)),
        refused=(
            ("patient", "sends moments of features"),
            ("site", "noise can make those of no features"),
        ),
    ),
    "boxes of mirrored images": Case(
        "detection",
        {**_PICTURE, "classes": _CLASSES, "augmentation": "histology"},
        _BOXES,
        evaluation=(("tta", "mirror"),),
    ),
}


def study_of(name: str, folder: Path, mode: str = "none", **sections: Content) -> Study:
    """Return the study of a case, over the manifests of a folder.

    Args:
        mode: Of privacy, a key of ``MODES``.
        sections: What it says beside.

    Raises:
        StudyError: The mode does not fit the case.
    """
    case = CASES[name]
    content: Content = {
        "study": {"name": name, "task": case.task},
        "data": case.data,
        "model": case.model,
        "training": {"batch_size": 3, "local_steps": 2, **dict(case.training)},
        "federation": {"rounds": 1, **dict(case.federation)},
        "privacy": MODES[mode],
        "evaluation": {"keep": "last", **dict(case.evaluation)},
        "simulation": {
            "data": "folder",
            "split": "natural",
            "compare": False,
            "options": {"manifest": str(folder / f"{case.manifest}.csv")},
        },
    }
    for section, keys in sections.items():
        content[section] = {**content.get(section, {}), **keys}
    return parse_study(content)


def write_hospitals(folder: Path) -> Path:
    """Write the images of both hospitals and their three tables; return the folder."""
    random = np.random.default_rng(0)
    rows: dict[str, list[dict[str, object]]] = {_PICTURES: [], _VOLUMES: [], _TIMES: []}
    for number in range(PATIENTS):
        common = _patient(number, random)
        label, lacks = number // 2 % 2, common["site"] == _LACKING
        files = _write_pictures(folder, number, label, random)
        volume, box = _write_volume(folder, number, label, random)
        pictures = {
            **common,
            **files,
            "label": label,
            "image.second": "" if lacks else files["image.second"],
            "age": "" if lacks else common["age"],
        }
        rows[_PICTURES].append(pictures)
        rows[_VOLUMES].append({**common, "image": volume, "boxes": box})
        seen = {"time": 40 * number + 20.5, "event": number % 3 % 2}
        rows[_TIMES].append({**common, "image": files["image"], **seen})
    for name, table in rows.items():
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(table[0]))
            writer.writeheader()
            writer.writerows(table)
    return folder


def _patient(number: int, random: np.random.Generator) -> dict[str, object]:
    return {
        "patient": f"CANARYPATIENT{number:03d}",
        "site": SITES[number % 2],
        "split": _SPLITS[number // 2 % len(_SPLITS)],
        "age": round(float(random.normal(60, 10)), 1),
        "weight": round(float(random.normal(80, 10)), 1),
        "height": round(float(random.normal(170, 10)), 1),
    }


def _write_pictures(
    folder: Path, number: int, label: int, random: np.random.Generator
) -> dict[str, object]:
    """Write two channels and a mask; return the cells, a box among them in every second one."""
    place = (slice(4, 14), slice(6, 16))
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[place] = 1
    paths = {name: folder / f"{number}-{name}.png" for name in ("image", "second", "mask")}
    for name in ("image", "second"):
        pixels = random.integers(0, 80, mask.shape) + 60 * (1 + label) * mask
        Image.fromarray(pixels.astype(np.uint8)).save(paths[name])
    Image.fromarray(mask).save(paths["mask"])
    box = f"{label} 6 4 16 14" if number // 2 % 3 else "none"
    return {
        "image": str(paths["image"]),
        "image.second": str(paths["second"]),
        "mask": str(paths["mask"]),
        "boxes": box,
    }


def _write_volume(
    folder: Path, number: int, label: int, random: np.random.Generator
) -> tuple[str, str]:
    volume = random.normal(0, 0.2, (16, 16, 16)).astype(np.float32)
    volume[3:12, 4:13, 5:14] += 1.0 + label
    path = folder / f"{number}-volume.npy"
    np.save(path, volume)
    return str(path), f"{label} 3 4 5 12 13 14"
