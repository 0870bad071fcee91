"""Own data in a folder: arrays and a manifest, from which a study of its hospitals is made."""

import csv
import hashlib
import io
import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import DataError, InputError
from wardround.simulations.notebook.data.columns import (
    as_list,
    as_text,
    require_present,
    rows_named,
)
from wardround.simulations.notebook.studies import Study
from wardround.simulations.notebook.study_keys import StudyChanges

MANIFEST = "manifest.csv"
_MARK = "wardround-data.json"
_DRAWN_SITES = 4


class AssumptionWarning(UserWarning):
    """Something that the data does not say was assumed, and a result depends on it."""


@dataclass(frozen=True, slots=True)
class OwnData:
    """Own data in a folder, ready for a study.

    Attributes:
        folder: Holds the arrays and ``manifest.csv``; copy neither, run folders point into it.
        task: "classification" or "segmentation".
        classes: In the study's order.
        examinations: Rows of the manifest.
        patients: Different ones.
        sites: The hospitals, in order of their names; empty where the data names none.
        assumptions: What the data does not say, as sentences.
        keys: What a study of it says, by section.
    """

    folder: Path
    task: str
    classes: tuple[str, ...]
    examinations: int
    patients: int
    sites: tuple[str, ...]
    assumptions: tuple[str, ...]
    keys: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @property
    def manifest(self) -> Path:
        """The table that a study, a split and a hospital's site folder read."""
        return self.folder / MANIFEST

    def study(self, name: str | None = None, **keys: Unpack[StudyChanges]) -> Study:
        """Return a study of this data.

        Classes, sizes, covariates and hospitals are those of the data; hospitals that it does not
        name are drawn, four unless ``sites`` says otherwise.

        Args:
            name: What it is called; the folder's name if absent.
            keys: Further keys of :class:`wardround.Study`, which win.

        Raises:
            StudyError: Says every problem in one paragraph.
        """
        said: dict[str, Any] = {section: dict(table) for section, table in self.keys.items()}
        for section, table in keys.items():
            own = said.get(section)
            said[section] = {**own, **table} if own and isinstance(table, Mapping) else table
        if self.assumptions and "description" not in keys:
            said["study"] = {"description": " ".join(self.assumptions)[:4_000], **said["study"]}
        called = name or _name_from(self.folder.name)
        return Study(called, said["study"].get("task", self.task), **said)

    def __repr__(self) -> str:
        return f"<OwnData {'; '.join(self._sentences())}>"

    def _sentences(self) -> list[str]:
        held = (
            f"{self.examinations} examinations of {self.patients} patients, "
            f"{len(self.classes)} classes ({', '.join(self.classes[:6])})"
        )
        sites = f"hospitals: {', '.join(self.sites[:8])}" if self.sites else "hospitals are drawn"
        return [held, sites, *self.assumptions]

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{escape(one)}</li>" for one in self._sentences())
        return f"<p><code>{escape(str(self.manifest))}</code></p><ul>{items}</ul>"


@dataclass(slots=True)
class Draft:
    """What is known of the rows before they are written.

    Attributes:
        columns: Of the manifest, in order; each with a text a row.
        arrays: Files beside it, by name.
        keys: Keys of the study, by section.
    """

    task: str
    classes: tuple[str, ...]
    rows: int
    columns: dict[str, Sequence[str]] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    assumptions: list[str] = field(default_factory=list)
    sites: tuple[str, ...] = ()

    def say(self, section: str, **keys: Any) -> None:
        """Set keys of a section."""
        self.keys.setdefault(section, {}).update(keys)


def add_people(
    draft: Draft, patients: Any, sites: Any, splits: Any, counted: str = "images"
) -> None:
    """Add whose the rows are, where, and in which part.

    Raises:
        DataError: A column is of another length, or a patient or hospital is not named.
    """
    if patients is None:
        names = [f"patient-{at:06d}" for at in range(draft.rows)]
        assumed = f"It is assumed that each of the {counted} is of a patient of its own."
        draft.assumptions.append(assumed)
        warnings.warn(
            f"{assumed} Give patients=, or pictures of one patient may be in training and test.",
            AssumptionWarning,
            stacklevel=3,
        )
    else:
        held = as_list(patients, "patients", draft.rows, counted)
        require_present(held, "patients", "name the patient, or leave such rows out")
        names = [as_text(one) for one in held]
    draft.columns["patient"] = names
    if sites is not None:
        held = as_list(sites, "sites", draft.rows, counted)
        require_present(held, "sites", "name the hospital, or leave such rows out")
        draft.columns["site"] = [as_text(one) for one in held]
        draft.sites = tuple(sorted(set(draft.columns["site"])))
        _require_one_site(names, draft.columns["site"])
        draft.say("simulation", split="natural")
    else:
        draft.assumptions.append("The data names no hospitals: patients are dealt out at random.")
        draft.say("simulation", split="iid", sites=min(_DRAWN_SITES, max(1, len(set(names)) // 3)))
    if splits is not None:
        held = as_list(splits, "splits", draft.rows, counted)
        draft.columns["split"] = ["" if one is None else as_text(one) for one in held]


def _require_one_site(patients: Sequence[str], sites: Sequence[str]) -> None:
    """Refuse a patient of two hospitals: what one of them tests, another would train on."""
    first: dict[str, str] = {}
    pairs = zip(patients, sites, strict=True)
    elsewhere = [
        at for at, (who, where) in enumerate(pairs) if first.setdefault(who, where) != where
    ]
    if elsewhere:
        msg = (
            "patients holds names that occur at more than one hospital, in "
            f"{rows_named(elsewhere)}: give these people one hospital, or, where hospitals count "
            "alike, names of their own (north-17)."
        )
        raise DataError(msg)


def write(draft: Draft, folder: Path, replace: bool) -> OwnData:
    """Write the folder, unless it holds just this; return the data.

    Raises:
        InputError: It holds something else, or cannot be written.
    """
    manifest = _manifest(draft)
    digest = _digest(draft, manifest)
    if not _is_there(folder, digest):
        _require_room(folder, replace)
        try:
            _put(draft, folder, manifest, digest)
        except OSError as error:
            msg = f"cannot write the data to {folder} ({error.strerror}): give another folder."
            raise InputError(msg) from None
    draft.say("study", task=draft.task)
    draft.say("data", classes=list(draft.classes))
    draft.say("simulation", data="folder", options={"manifest": str((folder / MANIFEST).resolve())})
    patients = len(set(draft.columns["patient"]))
    return OwnData(
        folder,
        draft.task,
        draft.classes,
        draft.rows,
        patients,
        draft.sites,
        tuple(draft.assumptions),
        draft.keys,
    )


def _manifest(draft: Draft) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(draft.columns)
    writer.writerows(zip(*draft.columns.values(), strict=True))
    return stream.getvalue()


def _digest(draft: Draft, manifest: str) -> str:
    found = hashlib.blake2b(manifest.encode(errors="surrogatepass"))
    for name, array in sorted(draft.arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def _is_there(folder: Path, digest: str) -> bool:
    try:
        return bool(json.loads((folder / _MARK).read_text("utf-8"))["digest"] == digest)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _require_room(folder: Path, replace: bool) -> None:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / _MARK).is_file():
        msg = f"{folder} holds other things: give a new folder for the data."
        raise InputError(msg)
    if not replace:
        msg = (
            f"{folder} holds other data, into which earlier runs point: give another folder, or "
            "replace=True."
        )
        raise InputError(msg)


def _put(draft: Draft, folder: Path, manifest: str, digest: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        for name, array in draft.arrays.items():
            np.save(part / name, array, allow_pickle=False)
        (part / MANIFEST).write_text(manifest, encoding="utf-8")
        (part / _MARK).write_text(json.dumps({"digest": digest}) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _name_from(text: str) -> str:
    name = "".join(letter if letter.isascii() and letter.isalnum() else " " for letter in text)
    return " ".join(name.split())[:64] or "own data"
