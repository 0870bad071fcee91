"""The hospitals' examinations and the study they begin with."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.year.images import CLASSES, SIDE, Archive, Examination

FOLLOWED, OTHERS, LATE = "north", ("south", "east"), "west"
ROUNDS = 6
MARGIN = 0.08  # the AUROC of fifty patients of a hospital moves by as much by chance
WEEKLY, REFERENCE, BY_READERS = 40, 200, 60
_WRONG = 0.08  # of the labels of the followed hospital, until a reader has looked


@dataclass
class Hospitals:
    """What the hospitals have, by the wave of data in which it came.

    Attributes:
        truths: What each image shows, by where it lies.
    """

    folder: Path
    archive: Archive
    rows: list[tuple[str, str, str, str, int]] = field(default_factory=list)
    truths: dict[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        """Have the founders' examinations of the first scanner."""
        for site in (FOLLOWED, *OTHERS):
            self._come(site, 300, 1, "A")

    def second_wave(self) -> None:
        """Have what came since: of the followed hospital images of the new scanner."""
        self._come(FOLLOWED, 240, 2, "B")
        for site in OTHERS:
            self._come(site, 160, 2, "A")

    def third_wave(self) -> None:
        """Have what came after that, and a hospital that is new."""
        self._come(FOLLOWED, 160, 3, "B")
        for site in OTHERS:
            self._come(site, 160, 3, "A")
        self._come(LATE, 200, 3, "A")

    def unlabelled(self) -> Path:
        """Write a list of images of the new scanner that nobody has labelled, and return it."""
        found = self._known(self.archive.take(BY_READERS, "B"))
        path = self.folder / "unlabelled.csv"
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["patient", "image", "wave"])
            writer.writerows((one.patient, one.image, 2) for one in found)
        return path

    def manifest(self, name: str) -> Path:
        """Write all that came so far as a researcher's manifest, and return it."""
        path = self.folder / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["patient", "image", "label", "site", "wave"])
            writer.writerows(self.rows)
        return path

    def _come(self, site: str, count: int, wave: int, scanner: str) -> None:
        some = self._known(self.archive.take(count, "B" if scanner == "B" else "A"))
        if site == FOLLOWED:
            some = _carelessly_labelled(some, wave)
        self.rows += [(one.patient, one.image, one.label, site, wave) for one in some]

    def _known(self, some: Sequence[Examination]) -> list[Examination]:
        self.truths |= {one.image: one.label for one in some}
        return [*some]


def _carelessly_labelled(some: Sequence[Examination], seed: int) -> list[Examination]:
    draw = np.random.default_rng(seed)
    other = dict(zip(CLASSES, reversed(CLASSES), strict=True))
    wrong = draw.random(len(some)) < _WRONG
    return [
        replace(one, label=other[one.label]) if is_wrong else one
        for one, is_wrong in zip(some, wrong, strict=True)
    ]


def study_text(manifest: Path) -> str:
    """Return the first study as a file holds it."""
    return f"""
[study]
name = "year"
task = "classification"
description = "Normal or pneumonia in small chest X-rays, for a year."

[data]
classes = ["{CLASSES[0]}", "{CLASSES[1]}"]
size = [{SIDE}, {SIDE}]
intensity = "xray"

[model]
network = "small-cnn"
features = [8, 16]
normalisation = "group"

[training]
optimiser = "adam"
learning_rate = 5e-3
batch_size = 16

[federation]
rounds = {ROUNDS}

[evaluation]
metric = "auroc"
keep = "last"
margin = {MARGIN}
test_fraction = 0.3
validation_fraction = 0.1

[continual]
wave = 1

[simulation]
data = "folder"
split = "natural"
compare = false

[simulation.options]
manifest = "{manifest.as_posix()}"
"""
