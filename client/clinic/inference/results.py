"""What a prediction leaves on the disk: a journal as it goes, tables at the end, masks beside them.

======================= =================================================================
``journal.jsonl``       one line an input, written when it is done: what a second try skips
``predictions.csv``     one row an input that was predicted
``predictions.json``    the same with what predicted it, and what could not be predicted
``failed.csv``          what could not be predicted, and why; absent where nothing failed
``masks/``              a segmentation each, on the voxels of its own image
``boxes.csv``           of a detection one row a box, as a manifest's column boxes reads it
======================= =================================================================
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.inference.inputs import Input
from wardround.client.clinic.inference.prediction import (
    Classified,
    Detected,
    Estimated,
    FoundBox,
    Prediction,
    Segmented,
)
from wardround.common.errors import InputError
from wardround.common.files.atomic import BY_UMASK, replace_file
from wardround.common.models.card import NOT_FOR_DIAGNOSIS

JOURNAL, TABLE, DETAILS, FAILED, MASKS = (
    "journal.jsonl",
    "predictions.csv",
    "predictions.json",
    "failed.csv",
    "masks",
)
BOXES = "boxes.csv"
FETCHED = "fetched"
"""The folder of what was fetched from an archive to be predicted."""
# Colours that differ for those who see no red or no green (Okabe and Ito 2008), class 0 black.
_COLOURS = (
    *(0, 0, 0, 230, 159, 0, 86, 180, 233, 0, 158, 115, 240, 228, 66),
    *(0, 114, 178, 213, 94, 0, 204, 121, 167, 255, 255, 255),
)
_BYTE = 256


@dataclass(frozen=True, slots=True)
class Done:
    """One line of the journal.

    Attributes:
        key: Of the input.
        name: What its results are called.
        content: What the model said, as in ``predictions.json``; empty where it failed.
        failure: Why it could not be predicted; "" where it was.
    """

    key: str
    name: str
    input: str
    content: Mapping[str, Any]
    failure: str = ""

    def line(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps(
            {
                "key": self.key,
                "name": self.name,
                "input": self.input,
                "content": dict(self.content),
                "failure": self.failure,
            }
        )


class Results:
    """The folder of one prediction; what an earlier try left there is kept."""

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        """Open a folder that is new, or that the same model began.

        Raises:
            InputError: It cannot be written, or holds something else.
        """
        self.folder, self._header = folder, dict(header)
        first = json.dumps(self._header, sort_keys=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._before = self._read(first)
            self._stream = (folder / JOURNAL).open("a", encoding="utf-8")
            if not self._stream.tell():
                self._stream.write(first + "\n")
        except OSError as error:
            msg = f"cannot write to {folder} ({error.strerror}): choose another --out."
            raise InputError(msg) from None

    def _read(self, first: str) -> dict[str, Done]:
        path = self.folder / JOURNAL
        if not path.is_file():
            if any(entry.name != FETCHED for entry in self.folder.iterdir()):
                msg = f"{self.folder} is not empty and holds no predictions: choose another --out."
                raise InputError(msg)
            return {}
        text = path.read_text(encoding="utf-8")
        whole, _, torn = text.rpartition("\n")
        if torn:  # of a process that was killed while it wrote
            with path.open("r+b") as stream:
                stream.truncate(len((whole + "\n").encode()) if whole else 0)
        lines = whole.splitlines()
        if lines and lines[0] != first:
            msg = (
                f"{self.folder} holds the predictions of another model or of other options: "
                "choose another --out."
            )
            raise InputError(msg)
        done = (Done(**json.loads(line)) for line in lines[1:])
        return {one.key: one for one in done}

    @property
    def names(self) -> dict[str, str]:
        """The names that inputs got before, by their keys."""
        return {key: one.name for key, one in self._before.items()}

    def has(self, one: Input) -> bool:
        """Return whether an input was predicted before, and its mask is there."""
        before = self._before.get(one.key)
        if before is None or before.failure:
            return False
        mask = before.content.get("mask")
        return mask is None or (self.folder / mask).is_file()

    def add(
        self, some: Sequence[tuple[Input, str, Prediction, Mapping[str, Sequence[str]]]]
    ) -> None:
        """Write what was predicted of a batch: inputs, names, predictions, and notes by column.

        The columns are ``outside``, why a model was not made for an image, and ``missing``, which
        optional parts an examination lacked.
        """
        for one, name, prediction, notes in some:
            content = _content(prediction) | {key: list(said) for key, said in notes.items()}
            if isinstance(prediction, Segmented):
                content["mask"] = self._write_mask(one, name, prediction)
            self._note(Done(one.key, name, one.text, content))
        self._stream.flush()

    def add_failure(self, one: Input, name: str, reason: str) -> None:
        """Write down that an input could not be predicted."""
        self._note(Done(one.key, name, one.text, {}, reason))
        self._stream.flush()

    def _note(self, done: Done) -> None:
        self._before[done.key] = done
        self._stream.write(done.line() + "\n")

    def finish(self, inputs: Sequence[Input]) -> tuple[list[Done], list[Done]]:
        """Write the tables; return what was predicted of these inputs, and what was not."""
        self._stream.close()
        every = [self._before[one.key] for one in inputs if one.key in self._before]
        good, bad = [d for d in every if not d.failure], [d for d in every if d.failure]
        details = {
            **{key: json.dumps(value) for key, value in self._header.items()},
            "note": json.dumps(NOT_FOR_DIAGNOSIS),
            "predictions": _lines([{"input": d.input, "name": d.name, **d.content} for d in good]),
            "failed": _lines([{"input": d.input, "reason": d.failure} for d in bad]),
        }
        text = ",\n".join(f"{json.dumps(key)}: {value}" for key, value in details.items())
        self._put(DETAILS, f"{{\n{text}\n}}\n")
        self._put(TABLE, _table([_row(d) for d in good]))
        framed = [{"image": d.input, **box} for d in good for box in d.content.get("boxes", ())]
        if any("boxes" in d.content for d in good):
            self._put(BOXES, _table(framed) if framed else "image,class,score\n")
        if bad:
            self._put(FAILED, _table([{"input": d.input, "reason": d.failure} for d in bad]))
        else:
            (self.folder / FAILED).unlink(missing_ok=True)
        return good, bad

    def _put(self, name: str, text: str) -> None:
        replace_file(self.folder / name, text, BY_UMASK, durable=False)

    def _write_mask(self, one: Input, name: str, found: Segmented) -> str:
        """Write a mask in the form of its image; return its place in the folder."""
        (self.folder / MASKS).mkdir(exist_ok=True)
        return f"{MASKS}/{write_mask(self.folder / MASKS, name, found, one.held[0].path)}"


def write_mask(folder: Path, name: str, found: Segmented, source: Path) -> str:
    """Write a mask in the form of its image, whole or not at all; return its file's name.

    Args:
        name: Of the file, without its ending.
        source: The image's file or folder.
    """
    labels, kind = found.labels, ".nii.gz"
    if found.affine is None:
        is_flat = labels.ndim == 2 and len(found.classes) <= _BYTE
        is_array = source.suffix.lower() in (".npy", ".npz")
        kind = ".png" if is_flat and not is_array else ".npy"
    part = folder / f".{name}.part{kind}"
    if kind == ".png":
        _write_picture(part, labels)
    elif kind == ".npy":
        np.save(part, labels, allow_pickle=False)
    else:
        _write_nifti(part, found, source)
    part.replace(folder / f"{name}{kind}")
    return f"{name}{kind}"


def _lines(items: Sequence[Mapping[str, Any]]) -> str:
    """Return a JSON list with a line an item: ten times as fast as json's own indentation."""
    return "[\n" + ",\n".join(json.dumps(item) for item in items) + "\n]"


def _write_picture(path: Path, labels: NDArray[Any]) -> None:
    import PIL.Image

    picture = PIL.Image.fromarray(labels.astype(np.uint8), mode="P")
    picture.putpalette(_COLOURS)
    picture.save(path)


def _write_nifti(path: Path, found: Segmented, source: Path) -> None:
    """Write labels as NIfTI: of a NIfTI file in its own order of axes, whatever the reader's is."""
    import nibabel
    from nibabel import orientations

    labels, affine = found.labels, found.affine
    labels = labels.reshape(*labels.shape, *(1,) * (3 - labels.ndim))
    if source.name.lower().endswith((".nii", ".nii.gz")):
        stored = nibabel.load(source)
        given = orientations.io_orientation(affine)
        wanted = orientations.io_orientation(stored.affine)
        if not np.isnan(given).any() and not np.isnan(wanted).any():
            turn = orientations.ornt_transform(given, wanted)
            affine = affine @ orientations.inv_ornt_aff(turn, labels.shape)
            labels = orientations.apply_orientation(labels, turn)
        if labels.size == np.prod(stored.shape[: labels.ndim]):
            labels = labels.reshape(stored.shape[: labels.ndim])
    image = nibabel.Nifti1Image(np.ascontiguousarray(labels), affine)
    image.header.set_xyzt_units("mm")
    image.header.set_intent("label")
    nibabel.save(image, path)


def _content(prediction: Prediction) -> dict[str, Any]:
    if isinstance(prediction, Classified):
        content: dict[str, Any] = {
            "probabilities": dict(zip(prediction.classes, prediction.probabilities, strict=True)),
            "found": list(prediction.found),
            "entropy": prediction.entropy,
        }
        if prediction.spread is not None:
            content["spread"] = dict(zip(prediction.classes, prediction.spread, strict=True))
        return content
    if isinstance(prediction, Detected):
        counts = dict(zip(prediction.classes, prediction.counts, strict=True))
        return {"counts": counts, "boxes": [_box(box) for box in prediction.boxes]}
    if isinstance(prediction, Estimated):
        return _estimates(prediction)
    content = {"voxels": dict(zip(prediction.classes, prediction.voxels, strict=True))}
    if prediction.volumes_ml is not None:
        found = zip(prediction.classes, prediction.volumes_ml, strict=True)
        content["volumes_ml"] = {name: round(volume, 6) for name, volume in found}
    if prediction.entropy is not None:
        content["entropy"] = prediction.entropy
    return content


def _estimates(prediction: Estimated) -> dict[str, Any]:
    content: dict[str, Any] = {
        "estimates": dict(zip(prediction.names, prediction.values, strict=True))
    }
    if prediction.unit:
        content["unit"] = prediction.unit
    if prediction.spread is not None:
        content["spread"] = dict(zip(prediction.names, prediction.spread, strict=True))
    return content


def _box(box: FoundBox) -> dict[str, Any]:
    names = "xyz"[: len(box.low)]
    first = {f"{name}0": round(place, 2) for name, place in zip(names, box.low, strict=True)}
    last = {f"{name}1": round(place, 2) for name, place in zip(names, box.high, strict=True)}
    return {"class": box.name, "score": round(box.score, 4), **first, **last}


_COLUMNS = {
    "counts": "boxes of ",
    "probabilities": "probability of ",
    "spread": "spread of ",
    "voxels": "voxels of ",
    "volumes_ml": "ml of ",
    "estimates": "",
}


def _row(done: Done) -> dict[str, Any]:
    row: dict[str, Any] = {"input": done.input, "name": done.name}
    for key, value in done.content.items():
        if key == "boxes":
            continue  # they have a table of their own
        if key in _COLUMNS:
            row.update({f"{_COLUMNS[key]}{name}": number for name, number in value.items()})
        else:
            row[key] = "; ".join(value) if isinstance(value, list) else value
    return row


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
