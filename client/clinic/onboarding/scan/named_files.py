"""Folders whose names say what their files are: a folder a class, or pictures and their masks."""

import re
from pathlib import Path

from wardround.client.clinic.onboarding.scan.found import (
    Found,
    PatientNames,
    grouped,
    images_in,
    stem_of,
)
from wardround.common.errors import InputError

_IMAGES = ("images", "image", "imgs", "img", "scans", "pictures")
_MASKS = ("masks", "mask", "labels", "segmentations", "segs", "annotations", "gt", "groundtruth")
_MASK_SUFFIX = re.compile(r"^(.+?)[_\-.](mask|seg|segmentation|label|gt|manual1?)$", re.IGNORECASE)
_CHANNEL = re.compile(r"[a-z][a-z0-9]{0,15}")
_MOST_CHANNELS = 16
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


def scan_pairs(folder: Path, names: PatientNames) -> Found | None:
    """Return what pictures with masks give: images/ beside masks/, or a suffix _mask or _seg.

    Raises:
        InputError: A picture has several masks, or its mask several pictures.
    """
    places = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    of_images = [places[name] for name in _IMAGES if name in places]
    of_masks = [places[name] for name in _MASKS if name in places]
    if len(of_images) > 1 or (of_images and len(of_masks) > 1):
        msg = (
            f"{folder} has the folders {', '.join(p.name for p in (*of_images, *of_masks))}: keep "
            "one of images and one of masks in it."
        )
        raise InputError(msg)
    if of_images and of_masks:
        images, masks = images_in(of_images[0]), images_in(of_masks[0])
        said = (f"image: {of_images[0].name}/", f"mask: {of_masks[0].name}/, of the same name")
    else:
        files = images_in(folder)
        masks = [path for path in files if _MASK_SUFFIX.match(stem_of(path))]
        if not masks:
            return None
        images = [path for path in files if path not in set(masks)]
        said = ("image: files without a suffix", "mask: files with the suffix _mask, _seg, ...")
    return _paired(folder, images, masks, names, said)


def _paired(
    folder: Path, images: list[Path], masks: list[Path], names: PatientNames, said: tuple[str, str]
) -> Found:
    by_name = grouped(images)
    masks_of: dict[str, list[Path]] = {}
    for mask in masks:
        name, match = stem_of(mask), _MASK_SUFFIX.match(stem_of(mask))
        masks_of.setdefault(name if name in by_name or not match else match[1], []).append(mask)
    several = sum(len(found) > 1 for found in (*by_name.values(), *masks_of.values()))
    if several:
        msg = f"{several} names in {folder} have several images or masks: keep one of each."
        raise InputError(msg)
    both = sorted(set(by_name) & set(masks_of))
    if not both and (channels := _channels(folder, images, masks_of, names)):
        return channels
    if not both:
        msg = f"{folder} has images and masks, but no two of the same name: give them the same."
        raise InputError(msg)
    patients = names.of(both)
    rows = [
        {
            "patient": patients[name],
            "image": by_name[name][0].relative_to(folder).as_posix(),
            "mask": masks_of[name][0].relative_to(folder).as_posix(),
        }
        for name in both
    ]
    explained = [names.said, *said]
    alone = len(by_name) + len(masks_of) - 2 * len(both)
    if alone:
        explained.append(f"left out: {alone} files without their mask or image")
    columns = ("patient", "image", "mask")
    return Found("images and masks", folder, columns, rows, tuple(explained))


def _channels(
    folder: Path, images: list[Path], masks_of: dict[str, list[Path]], names: PatientNames
) -> Found | None:
    """Return what NAME_t1, NAME_flair and NAME_mask give, None where names are others."""
    found: dict[str, dict[str, Path]] = {name: {} for name in masks_of}
    for image in images:
        name, _, channel = stem_of(image).rpartition("_")
        if name not in found or not _CHANNEL.fullmatch(channel.lower()):
            return None
        found[name][channel.lower()] = image
    channels = sorted({channel for of_one in found.values() for channel in of_one})
    whole = {name: of_one for name, of_one in found.items() if len(of_one) == len(channels)}
    if not channels or len(channels) > _MOST_CHANNELS or not whole:
        return None
    patients = names.of(whole)
    rows = [
        {
            "patient": patients[name],
            **{f"image.{c}": of_one[c].relative_to(folder).as_posix() for c in channels},
            "mask": masks_of[name][0].relative_to(folder).as_posix(),
        }
        for name, of_one in sorted(whole.items())
    ]
    said = [names.said, *(f"image.{c}: files with the suffix _{c}" for c in channels)]
    said.append("mask: files with the suffix _mask, _seg, ...")
    if len(whole) < len(found):
        said.append(f"left out: {len(found) - len(whole)} names without a file of each channel")
    columns = ("patient", *(f"image.{c}" for c in channels), "mask")
    return Found("images and masks", folder, columns, rows, tuple(said))


def scan_classes(folder: Path, names: PatientNames) -> Found | None:
    """Return what a folder of a folder a class gives, below train/ and test/ or not.

    Raises:
        InputError: The same name stands in two classes.
    """
    places = _folders(folder)
    if places and all(place.name.lower() in _SPLITS for place in places):
        labelled = [
            (_SPLITS[place.name.lower()], inner.name, path)
            for place in places
            for inner in _folders(place)
            for path in images_in(inner)
        ]
    else:
        labelled = [("", place.name, path) for place in places for path in images_in(place)]
    classes = sorted({label for _, label, _ in labelled})
    if len(classes) < 2 or images_in(folder):
        return None
    patients = names.of(dict.fromkeys(stem_of(path) for _, _, path in labelled))
    has_split = any(split for split, _, _ in labelled)
    rows = [
        {
            "patient": patients[stem_of(path)],
            "image": path.relative_to(folder).as_posix(),
            "label": label,
            **({"split": split} if has_split else {}),
        }
        for split, label, path in labelled
    ]
    _check_one_split(rows, has_split)
    said = [names.said, "image: each file", f"label: the folder ({', '.join(classes)[:200]})"]
    columns = ("patient", "image", "label", *(("split",) if has_split else ()))
    if has_split:
        said.append("split: the folder above")
    return Found("a folder a class", folder, columns, rows, tuple(said))


def _check_one_split(rows: list[dict[str, str]], has_split: bool) -> None:
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["patient"], set()).add(row.get("split", ""))
    several = sum(len(found) > 1 for found in splits.values())
    if has_split and several:
        msg = (
            f"{several} patients stand below train and test both: what is tested on would have "
            "been trained on. Move all images of a patient to one side, or say who is who with "
            "--patient."
        )
        raise InputError(msg)


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
