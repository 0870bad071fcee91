"""Twelve small pictures and a table over them, as somebody may have saved it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HEADER = "patient,image,label,split"
SPLITS = ("train",) * 6 + ("validation",) * 3 + ("test",) * 3
STUDY = """
[study]
name = "table"
task = "classification"

[data]
classes = ["normal", "abnormal"]
size = [16, 16]
{data}
[model]
network = "small-cnn"
features = [4, 8]
normalisation = "group"

[simulation]
data = "folder"
split = "iid"
sites = 1

[simulation.options]
manifest = "manifest.csv"
"""


@dataclass(frozen=True, slots=True)
class Pictures:
    """A folder with pictures, a manifest, and a study; patients and files are called CANARY..."""

    folder: Path

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.csv"

    @property
    def study(self) -> Path:
        return self.folder / "study.toml"

    def rows(self) -> list[list[str]]:
        """Return the cells of twelve good rows, below the header."""
        return [
            [f"CANARY{n:03d}", f"CANARY{n:02d}.png", ("normal", "abnormal")[n % 2], SPLITS[n]]
            for n in range(12)
        ]

    def write(self, rows: list[list[str]], header: str = HEADER, data: str = "") -> None:
        """Write the table with commas, and the study."""
        text = "\n".join([header, *(",".join(row) for row in rows)]) + "\n"
        self.manifest.write_text(text, encoding="utf-8")
        self.study.write_text(STUDY.format(data=data), encoding="utf-8")


def make_pictures(folder: Path) -> Pictures:
    """Draw the pictures, each another, and write a table that is right."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for number in range(12):
        pixels = generator.integers(0, 255, (16, 16)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"CANARY{number:02d}.png")
    pictures = Pictures(folder)
    pictures.write(pictures.rows())
    return pictures
