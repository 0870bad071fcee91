"""Twenty small pictures of two hospitals, a study over them, and what a command line says."""

from dataclasses import dataclass
from pathlib import Path

TINY_STUDY = """
[study]
name = "tiny"
task = "classification"

[data]
classes = ["normal", "abnormal"]
size = [16, 16]

[model]
network = "small-cnn"
features = [4, 8]
normalisation = "group"

[training]
batch_size = 4

[federation]
rounds = 2

[simulation]
data = "folder"
split = "natural"

[simulation.options]
manifest = "{manifest}"
"""

# One that is handed in, and need not run.
SMALLEST_STUDY = """
[study]
name = "tiny"
task = "classification"
[data]
classes = ["a", "b"]
size = [16, 16]
[model]
network = "small-cnn"
normalisation = "group"
"""


@dataclass(frozen=True, slots=True)
class TinyStudy:
    """Twenty small pictures of two hospitals, and a study over them.

    Patients are called CANARYPATIENT000 and so on, files CANARYFILE000.png: neither may ever be
    heard of outside a manifest.
    """

    folder: Path

    @property
    def study(self) -> Path:
        return self.folder / "study.toml"

    @property
    def manifest(self) -> Path:
        return self.folder / "manifest.csv"

    def picture(self, number: int) -> Path:
        return self.folder / "images" / f"CANARYFILE{number:03d}.png"

    def change_study(self, old: str, new: str) -> None:
        _replace(self.study, old, new)

    def change_manifest(self, old: str, new: str) -> None:
        _replace(self.manifest, old, new)


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Said:
    """What a command line said."""

    code: int
    out: str
    err: str
