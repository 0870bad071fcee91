"""Prepared images on disk, for sites with more of them than memory.

They lie in ``state/prepared/SETTINGS/`` as memory-mapped .npy files that only the owner can read. A
file's name is a hash of its sources' paths, times and sizes and of the settings: a changed
source or setting never meets an old file. No name of a patient's file appears in it.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.data.manifest.examination import Examination, Location
from wardround.client.data.manifest.label_words import label_words
from wardround.client.data.preprocessing.case import Case, StoredMask
from wardround.client.data.preprocessing.scanner_shift import scanner_of
from wardround.client.data.reading.array_files import load_array
from wardround.client.data.source_files import (
    PREPARED_FOLDER,
    has_mark,
    is_mark,
    mark_of,
    remove_outdated,
    write_mark,
)
from wardround.client.site.folder import Site
from wardround.common.files.atomic import make_private_folder, replace_file
from wardround.common.study.study import Study

PREPARATION_VERSION = 2  # raise it when the same settings give other arrays
# A study that rests for weeks between rounds finds its images prepared.
_UNUSED_SECONDS = 30 * 24 * 3600.0
# Longer than writing one block takes: what is older was left by a crash.
_UNFINISHED_SECONDS = 3600.0
_SETTINGS = (
    "channels",
    "dimensions",
    "colour",
    "classes",
    "size",
    "fit",
    "spacing",
    "orientation",
    "resample_to",
    "ignore_label",
    "intensity",
    "window",
    "scaling",
    "denoise",
    "harmonisation",
)


@dataclass(frozen=True, slots=True)
class DiskCase:
    """A prepared examination that stays on disk until it is used."""

    folder: Path
    key: str

    def load(self) -> Case:
        """Return the examination, memory-mapped: only what is used is read."""
        mask = self.folder / f"{self.key}.mask.npy"
        return Case(
            torch.from_numpy(_mapped(self.folder / f"{self.key}.image.npy")),
            torch.from_numpy(_mapped(mask)) if mask.exists() else None,
            self.spacing,
            stored=self.stored,
            boxes=self.boxes,
        )

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimetres a voxel."""
        return tuple(self._numbers("spacing").tolist())

    @property
    def stored(self) -> StoredMask | None:
        """The mask as it was stored, if its grid is another; memory-mapped too."""
        labels = self.folder / f"{self.key}.stored.npy"
        if not labels.exists():
            return None
        resampled, spacing_mm = self._numbers("grid").tolist()
        whole = torch.from_numpy(_mapped(labels))
        return StoredMask(whole, tuple(int(size) for size in resampled), tuple(spacing_mm))

    @property
    def boxes(self) -> Tensor | None:
        """The boxes; None of another task."""
        boxes = self.folder / f"{self.key}.boxes.npy"
        return torch.from_numpy(load_array(boxes)) if boxes.exists() else None

    def _numbers(self, name: str) -> NDArray[np.float64]:
        path = self.folder / f"{self.key}.{name}.npy"
        return load_array(path)


class PreparedFolder:
    """The prepared examinations of one site under one study's settings."""

    def __init__(self, site: Site, study: Study) -> None:
        settings = study.data.model_dump(mode="json", include=set(_SETTINGS))
        settings["version"] = PREPARATION_VERSION
        settings["task"] = study.study.task
        if values := label_words(site, study).values:
            settings["mask_values"] = sorted(values.items())
        if study.task.column == "boxes":
            words = label_words(site, study)
            settings["box_words"] = [sorted(words.classes.items()), sorted(words.others)]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self._root = site.state_folder / PREPARED_FOLDER
        self._site, self._mark = site, mark_of(site)  # as it is before it is read
        self.folder = self._root / digest[:16]
        self._is_used = False

    @property
    def is_lost(self) -> bool:
        """Whether what lay here was removed, since the manifest was changed."""
        return self._is_used and not self.folder.is_dir()

    def key(self, examination: Examination) -> str:
        """Return the name under which an examination is kept."""
        scanner = scanner_of(examination, self._site)
        facts: list[Any] = []
        if scanner.shift:
            facts = [scanner.model_dump(mode="json"), examination.patient]
        if examination.boxes is not None:
            facts.append(examination.boxes.text)
        absent = [at for at, image in enumerate(examination.images) if image is None]
        facts += [f"without channel {at}" for at in absent]  # tells two examinations apart
        for location in examination.locations:
            facts.append([location.array, location.index, location.count, *_source_facts(location)])
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def find(self, key: str) -> DiskCase | None:
        """Return what is kept under a name; the spacing is written last, so it is complete."""
        complete = (self.folder / f"{key}.spacing.npy").exists()
        self._is_used = self._is_used or complete
        return DiskCase(self.folder, key) if complete else None

    def save(self, key: str, case: Case) -> DiskCase:
        """Keep an examination; each file appears at once or not at all."""
        make_private_folder(self.folder)
        if not self._is_used and not has_mark(self.folder, self._mark):
            write_mark(self.folder, self._mark)
        self._is_used = True
        _write(self.folder / f"{key}.image.npy", case.image.numpy())
        if case.mask is not None:
            _write(self.folder / f"{key}.mask.npy", case.mask.numpy())
        if case.boxes is not None:
            _write(self.folder / f"{key}.boxes.npy", case.boxes.numpy())
        if case.stored is not None:
            numbers = np.array([case.stored.resampled, case.stored.spacing_mm], dtype=np.float64)
            _write(self.folder / f"{key}.grid.npy", numbers)
            _write(self.folder / f"{key}.stored.npy", case.stored.labels.numpy())
        _write(self.folder / f"{key}.spacing.npy", np.array(case.spacing))
        return DiskCase(self.folder, key)

    def remove_stale(self, examinations: Iterable[Examination]) -> None:
        """Remove what belongs to no examination, and what was prepared of another manifest.

        Settings that were unused for thirty days go too.
        """
        if not self._root.is_dir():
            return
        now = time.time()
        remove_outdated(self._site, self._mark, keep=self.folder)
        if self.folder.is_dir():
            write_mark(self.folder, self._mark)
            os.utime(self.folder)
            wanted = {self.key(examination) for examination in examinations}
            for path in self._files(now):
                if path.name.partition(".")[0] not in wanted:
                    path.unlink(missing_ok=True)
        for folder in self._root.iterdir():
            if folder.is_dir() and now - folder.stat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    def _files(self, now: float) -> Iterator[Path]:
        for path in self.folder.iterdir():
            if is_mark(path):
                continue
            # Another process may be writing an unfinished file.
            if path.suffix == ".npy" or now - path.stat().st_mtime > _UNFINISHED_SECONDS:
                yield path


def _source_facts(location: Location) -> list[Any]:
    path = location.path
    if not path.exists():
        return [str(path)]
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    return [[str(p), p.stat().st_mtime_ns, p.stat().st_size] for p in files]


def _mapped(path: Path) -> NDArray[Any]:
    # Copy on write: PyTorch wants writable memory, and the file must stay as it is.
    return load_array(path, "c")


def _write(path: Path, array: NDArray[Any]) -> None:
    def write(part: Path) -> None:
        with part.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)

    replace_file(path, write, durable=False)
