"""A handful of patients with all that a study may ask for: pictures, volumes, masks, a table."""

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PATIENTS = 30
SITES = ("north", "south", "west")
CLASSES = ("nothing", "small", "large")
# The two last examinations of each site are second ones of patients that it has already.
EXAMINATIONS = PATIENTS + 2 * len(SITES)
_SPLITS = ("train", "train", "train", "train", "train", "train", "validation", "validation")


@dataclass(frozen=True, slots=True)
class Kind:
    """What images look like.

    Attributes:
        dimensions: 2 or 3.
        colour: Of pictures.
        one_size: Whether all are of one shape.
    """

    dimensions: int = 2
    colour: bool = False
    one_size: bool = True

    @property
    def name(self) -> str:
        return f"{self.dimensions}{'-colour' * self.colour}{'-one-size' * self.one_size}"


KINDS = (
    Kind(),
    Kind(one_size=False),
    Kind(colour=True),
    Kind(colour=True, one_size=False),
    Kind(dimensions=3),
    Kind(dimensions=3, one_size=False),
)


def write_images(folder: Path) -> None:
    """Write the images of every kind, two channels each, and their masks of two or three labels."""
    generator = np.random.default_rng(0)
    for kind in KINDS:
        (folder / kind.name).mkdir(parents=True)
        for number in range(EXAMINATIONS):
            mask = _mask(kind, number)
            for most in (1, 2):
                _save(folder, kind, f"{number}-mask-{most}", mask.clip(max=most))
            for channel in ("image", "second"):
                bright = mask[..., None] * 60 if kind.colour else mask * 60
                noise = generator.integers(0, 90, (*mask.shape, 3) if kind.colour else mask.shape)
                _save(folder, kind, f"{number}-{channel}", (noise + bright).astype(np.uint8))


def write_manifest(
    path: Path,
    images: Path,
    kind: Kind,
    class_count: int,
    several: bool,
    splits: bool,
    outcome: str = "",
    optional: Collection[str] = (),
) -> None:
    """Write a manifest over these images, with columns for every choice of a study.

    Args:
        several: Whether an examination is of several classes.
        outcome: Whether it is of a "number" or of a "time" instead.
        splits: Whether it says who is trained on and tested; half of each site's patients.
        optional: Columns whose cells are empty in some rows; never those of both images.
    """
    generator = np.random.default_rng(1)
    columns = ["patient", "site", "split", "label", "boxes", "mask", "image", "image.second"]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*columns, "age", "weight", "sex", "wave"])
        for number in range(EXAMINATIONS):
            patient = number % PATIENTS
            label = _label(number) % max(class_count, 2)
            of_several = ";".join(CLASSES[:label]) or "none"
            place = patient // len(SITES)
            split = _SPLITS[place] if place < len(_SPLITS) else "test"
            lacks = {
                name
                for at, name in enumerate(("image", "second", "age", "weight", "sex"))
                if name in optional and number % 5 == at
            }
            names = (
                f"{number}-mask-{max(class_count - 1, 1)}",
                f"{number}-image",
                f"{number}-second",
            )
            writer.writerow(
                [
                    f"p{patient}",
                    SITES[patient % len(SITES)],
                    split if splits else "",
                    _outcome(outcome, number) or (of_several if several else CLASSES[label]),
                    _boxes(images, kind, number, class_count),
                    *(
                        "" if name.rpartition("-")[2] in lacks else _file(images, kind, name)
                        for name in names
                    ),
                    "" if "age" in lacks else generator.normal(60, 10),
                    "" if "weight" in lacks else generator.normal(80, 10),
                    "" if "sex" in lacks else "fmd"[number % (3 if "sex" in optional else 2)],
                    1 + number % 2,
                ]
            )


def _outcome(kind: str, number: int) -> str:
    patient = number % PATIENTS
    if kind == "time":
        return f"{40 * patient + 20}.5;{patient % 2}"
    return f"{3 * patient + 2}.25" if kind else ""


def _label(number: int) -> int:
    return number % PATIENTS // len(SITES) % len(CLASSES)


def _boxes(images: Path, kind: Kind, number: int, class_count: int) -> str | Path:
    """Return a cell of boxes: nothing, the boxes themselves, or a mask that has them."""
    label = _label(number)
    if label == 0:
        return "none"
    if number % 2:
        return _file(images, kind, f"{number}-mask-{class_count - 1}")
    ends = ("4 " * kind.dimensions, f"{5 + 3 * label} " * kind.dimensions)
    return f"{CLASSES[label % class_count]} {ends[0]}{ends[1]}"


def _mask(kind: Kind, number: int) -> NDArray[np.uint8]:
    side = 18 if kind.one_size else 14 + number % 5
    mask = np.zeros((side, 18, 16)[: kind.dimensions], dtype=np.uint8)
    label = _label(number)
    mask[(slice(4, 5 + 3 * label),) * kind.dimensions] = label  # nothing is found in some
    return mask


def _file(images: Path, kind: Kind, name: str) -> Path:
    return images / kind.name / f"{name}.{'npy' if kind.dimensions == 3 else 'png'}"


def _save(folder: Path, kind: Kind, name: str, array: NDArray[np.uint8]) -> None:
    path = _file(folder, kind, name)
    if kind.dimensions == 3:
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
