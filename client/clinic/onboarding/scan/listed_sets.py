"""Data sets with a dataset.json: nnU-Net version 2, and the Medical Segmentation Decathlon."""

import json
from pathlib import Path
from typing import Any

from wardround.client.clinic.onboarding.scan.found import Found, PatientNames, images_in, stem_of
from wardround.common.errors import InputError

_LARGEST = 64 * 2**20  # bytes of a dataset.json


def scan_nnunet(folder: Path, names: PatientNames) -> Found | None:
    """Return what an nnU-Net v2 folder gives, None where it is none.

    Raises:
        InputError: Files are missing, or its dataset.json is none.
    """
    content = _dataset_json(folder)
    if content is None or "channel_names" not in content:
        return None
    channels, ending = content["channel_names"], str(content.get("file_ending", ".nii.gz"))
    if not isinstance(channels, dict) or not (folder / "imagesTr").is_dir():
        msg = f"{folder / 'dataset.json'} is of nnU-Net, but its channel_names or imagesTr is not."
        raise InputError(msg)
    masks = {p.name.removesuffix(ending): p for p in _files(folder / "labelsTr", ending)}
    columns = _channel_columns([str(name) for _, name in sorted(channels.items(), key=_number)])
    rows, without = [], 0
    patients = names.of(sorted(masks))
    for case, mask in sorted(masks.items()):
        images = [folder / "imagesTr" / f"{case}_{n:04d}{ending}" for n in range(len(columns))]
        if not all(image.is_file() for image in images):
            without += 1
            continue
        row = {"patient": patients[case], "mask": _relative(mask, folder)}
        rows.append(row | {c: _relative(i, folder) for c, i in zip(columns, images, strict=True)})
    said = [names.said, *(f"{c}: imagesTr/*_{n:04d}{ending}" for n, c in enumerate(columns))]
    said += [f"mask: labelsTr/*{ending} ({_labels(content)})"]
    if without:
        said.append(f"left out: {without} cases without an image of each channel")
    if (folder / "imagesTs").is_dir():
        said.append("left out: imagesTs, which has no masks")
    return Found("nnU-Net", folder, ("patient", *columns, "mask"), rows, tuple(said))


def scan_decathlon(folder: Path, names: PatientNames) -> Found | None:
    """Return what a task of the Decathlon gives, None where it is none.

    Raises:
        InputError: Files are missing, or its dataset.json is none.
    """
    content = _dataset_json(folder)
    training = content.get("training") if content else None
    if not isinstance(training, list):
        return None
    pairs, without = [], 0
    for entry in training:
        found = isinstance(entry, dict) and [
            _inside(folder, entry.get(key)) for key in ("image", "label")
        ]
        if found and all(path is not None and path.is_file() for path in found):
            pairs.append([path for path in found if path is not None])
        else:
            without += 1
    patients = names.of(stem_of(image) for image, _ in pairs)
    rows = [
        {
            "patient": patients[stem_of(image)],
            "image": _relative(image, folder),
            "mask": _relative(mask, folder),
        }
        for image, mask in pairs
    ]
    modality = content.get("modality", {}) if content else {}
    said = [names.said, "image: training[].image", f"mask: training[].label ({_labels(content)})"]
    if isinstance(modality, dict) and len(modality) > 1:
        said.append(
            f"each image is a file of {len(modality)} channels: {_words(modality.values())}"
        )
    if without:
        said.append(f"left out: {without} entries whose files are not there")
    return Found("Decathlon", folder, ("patient", "image", "mask"), rows, tuple(said))


def _dataset_json(folder: Path) -> dict[str, Any] | None:
    path = folder / "dataset.json"
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        msg = f"{path} cannot be read as JSON: mend it."
        raise InputError(msg) from None
    return content if isinstance(content, dict) else None


def _inside(folder: Path, name: object) -> Path | None:
    """Return a file that a dataset.json names, None where it would lie elsewhere."""
    if not isinstance(name, str):
        return None
    path = folder / name
    return path if path.resolve().is_relative_to(folder.resolve()) else None


def _files(folder: Path, ending: str) -> list[Path]:
    return [p for p in images_in(folder) if p.name.endswith(ending)] if folder.is_dir() else []


def _channel_columns(names: list[str]) -> list[str]:
    if len(names) == 1:
        return ["image"]
    words = ["".join(s if s.isalnum() else "_" for s in name.lower()) for name in names]
    if len(set(words)) < len(words):
        words = [f"channel{number}" for number in range(len(names))]
    return [f"image.{word}" for word in words]


def _number(entry: tuple[str, object]) -> int:
    return int(entry[0]) if str(entry[0]).isdecimal() else 0


def _labels(content: dict[str, Any] | None) -> str:
    labels = content.get("labels", {}) if content else {}
    return (
        f"labels: {_words(labels)}, {_words(labels.values())}" if isinstance(labels, dict) else ""
    )


def _words(values: Any) -> str:
    return " ".join(str(value)[:40] for value in list(values)[:30])


def _relative(path: Path, folder: Path) -> str:
    return path.resolve().relative_to(folder.resolve()).as_posix()
