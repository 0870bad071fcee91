"""The cells of a manifest: from text to a location, a split, a number."""

import math
import re
from functools import lru_cache
from pathlib import Path

from wardround.client.data.manifest.examination import Location, SplitName

ARRAY_FILES = (".npy", ".npz")
# What may follow the path of DICOM files; their reader says what there is to choose.
_DICOM_PART = re.compile(r"^(series|volume|frame)=\w{1,9}$", re.ASCII)

_SPLIT_NAMES: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
# A volume of a NIfTI file with four axes, and how many it must hold.
_VOLUME = re.compile(r"(.+\.nii(?:\.gz)?)#(\d{1,6})(?:/(\d{1,6}))?", re.IGNORECASE | re.DOTALL)
_MISSING = frozenset({"", "?", "na", "n/a", "nan", "none", "null"})


def parse_location(text: str, root: Path) -> Location:
    """Return where a cell points to.

    ``file.npy#17`` and ``set.npz#train_images#17`` point into an array file, ``scan.nii.gz#0`` and
    ``scan.nii.gz#0/4`` to a volume of a NIfTI file; ``study/#series=4``, ``film.dcm#frame=middle``
    and ``dynamic/#volume=0`` choose among DICOM images; any other cell is a path, whatever signs it
    holds.

    Args:
        text: The cell; relative paths start from ``root``.
        root: The site's data root.

    Raises:
        ValueError: What follows the file's name is not an array and an item.
    """
    if volume := _VOLUME.fullmatch(text):
        count = None if volume[3] is None else int(volume[3])
        return Location(root / volume[1], None, int(volume[2]), count)
    name, *parts = text.split("#")
    if parts and all(_DICOM_PART.match(part) for part in parts):
        return Location(root / name, "#".join(parts))
    if not parts or not name.lower().endswith(ARRAY_FILES):
        return Location(root / text)
    if name.lower().endswith(".npz") and not parts[0].isdecimal():
        array, *parts = parts
    else:
        array = None
    if len(parts) > 1 or not all(part.isdecimal() for part in parts):
        msg = "not ARRAY#ITEM"
        raise ValueError(msg)
    return Location(_array_file(root, name), array, int(parts[0]) if parts else None)


def may_hold_channels(text: str) -> bool:
    """Return whether a cell names a file that may hold several channels, by its name."""
    return text.lower().endswith((".nii", ".nii.gz"))


def channel_cells(text: str, count: int) -> tuple[str, ...]:
    """Return the cell of each channel of a file that must hold so many; "" stays "".

    Args:
        text: Names the file.
        count: How many channels the study has.
    """
    return tuple(f"{text}#{channel}/{count}" if text else "" for channel in range(count))


@lru_cache(maxsize=64)
def _array_file(root: Path, name: str) -> Path:
    """Return an array file's path; thousands of rows name the same few files."""
    return root / name


def parse_split(text: str) -> SplitName | None:
    """Return the split that a cell names, None for an empty cell.

    Raises:
        ValueError: It is no split.
    """
    if not text:
        return None
    try:
        return _SPLIT_NAMES[text.lower()]
    except KeyError:
        msg = "not a split"
        raise ValueError(msg) from None


def parse_number(text: str) -> float | None:
    """Return the number in a cell, None where it is missing (empty, ``?``, ``NA``, ...).

    Raises:
        ValueError: It is neither a finite number nor a sign for a missing one.
    """
    if text.strip().lower() in _MISSING:
        return None
    number = float(text)
    if not math.isfinite(number):
        msg = "not finite"
        raise ValueError(msg)
    return number
