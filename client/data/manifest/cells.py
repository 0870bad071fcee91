"""The cells of a manifest: from text to a location, a split, a number."""

import math
import re
from collections.abc import Callable
from pathlib import Path

from wardround.client.data.manifest.examination import Location, SplitName

ARRAY_FILES = (".npy", ".npz")
_MOST_WAVES = 1_000
# What may follow the path of DICOM files; their reader says what there is to choose.
_DICOM_PART = re.compile(r"^(series|volume|frame)=\w{1,9}$", re.ASCII)

_SPLIT_NAMES: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "validate": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
    "testing": "test",
}
# A volume of a NIfTI file with four axes, and how many it must hold.
_VOLUME = re.compile(r"(.+\.nii(?:\.gz)?)#(\d{1,6})(?:/(\d{1,6}))?", re.IGNORECASE | re.DOTALL)
_MISSING = frozenset(
    {"", "?", ".", "-", "–", "na", "n/a", "#n/a", "#nv", "<na>", "nan", "nat", "none", "null"}
)
_NO_PATIENT = frozenset({"nan", "nat", "none", "null", "<na>", "n/a", "na"})
# What a spreadsheet writes in the place of a value: #N/A, #REF!, #NAME?, #DIV/0!, ######.
_SPREADSHEET_ERROR = re.compile(r"#(n/?a|nv|name\?|[^\W\d_]+!|div/0!|#+)", re.IGNORECASE)
_LARGEST = 1e12  # of a clinical value; a network's own numbers end at 3e38, and it squares them
_ROUNDED = re.compile(r"\d([.,]\d+)?e\+\d{2,3}", re.IGNORECASE)  # 1.23457E+11
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


def parse_location(text: str, find: Callable[[str], Path]) -> Location:
    """Return where a cell points to.

    ``file.npy#17`` and ``set.npz#train_images#17`` point into an array file, ``scan.nii.gz#0`` and
    ``scan.nii.gz#0/4`` to a volume of a NIfTI file; ``study/#series=4``, ``film.dcm#frame=middle``
    and ``dynamic/#volume=0`` choose among DICOM images; any other cell is a path, whatever signs it
    holds.

    Args:
        text: The cell.
        find: Returns where a file lies.

    Raises:
        ValueError: What follows the file's name is not an array and an item.
    """
    if volume := _VOLUME.fullmatch(text):
        count = None if volume[3] is None else int(volume[3])
        return Location(find(volume[1]), None, int(volume[2]), count)
    name, *parts = text.split("#")
    if parts and all(_DICOM_PART.match(part) for part in parts):
        return Location(find(name), "#".join(parts))
    if not parts or not name.strip().lower().endswith(ARRAY_FILES):
        return Location(find(text))
    if name.strip().lower().endswith(".npz") and not parts[0].isdecimal():
        array, *parts = parts
    else:
        array = None
    if len(parts) > 1 or not all(part.isdecimal() for part in parts):
        msg = "not ARRAY#ITEM"
        raise ValueError(msg)
    return Location(find(name), array, int(parts[0]) if parts else None)


def may_hold_channels(text: str) -> bool:
    """Return whether a cell names a file that may hold several channels, by its name."""
    return text.strip().lower().endswith((".nii", ".nii.gz"))


def channel_cells(text: str, count: int) -> tuple[str, ...]:
    """Return the cell of each channel of a file that must hold so many; "" stays "".

    Args:
        text: Names the file.
        count: How many channels the study has.
    """
    return tuple(f"{text}#{channel}/{count}" if text else "" for channel in range(count))


def location_text(location: Location) -> str:
    """Return a cell from which :func:`parse_location` reads a location again."""
    index = location.index if location.count is None else f"{location.index}/{location.count}"
    items = [one for one in (location.array, index) if one is not None]
    return "#".join([str(location.path), *map(str, items)])


def parse_split(text: str) -> SplitName | None:
    """Return the split that a cell names, None for an empty cell.

    Raises:
        ValueError: It is no split.
    """
    if not text:
        return None
    try:
        return _SPLIT_NAMES[text.casefold()]
    except KeyError:
        msg = "not a split"
        raise ValueError(msg) from None


def parse_wave(text: str) -> int:
    """Return the wave of data that a cell names; 1 for an empty cell.

    Raises:
        ValueError: It is no whole number from 1 to 1000.
    """
    if not text:
        return 1
    whole = text.removesuffix(".0")  # as spreadsheets and pandas write it
    if not (whole.isascii() and whole.isdecimal()) or not 1 <= int(whole[:5]) <= _MOST_WAVES:
        msg = "not a wave"
        raise ValueError(msg)
    return int(whole)


def is_missing(text: str) -> bool:
    """Whether a cell of a covariate says that there is no value: empty, ``?``, ``NA``, ..."""
    return text.strip().casefold() in _MISSING


def parse_number(text: str) -> float | None:
    """Return the number in a cell, None where it is missing (empty, ``?``, ``NA``, ...).

    Raises:
        ValueError: It is neither a number of at most 1e12 nor a sign for a missing one; says which,
            and never what stands there.
    """
    if is_missing(text):
        return None
    try:  # "_" is Python's own sign between digits, and nobody else's
        number = math.nan if "_" in text else float(text.replace("\u2212", "-"))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        msg = "not a number"
        raise ValueError(msg)
    if abs(number) > _LARGEST:
        msg = f"a number beyond {_LARGEST:g}"
        raise ValueError(msg)
    return number


def with_decimal_point(text: str) -> str:
    """Return a number whose decimal mark is a comma with a point; any other text as it is."""
    return text.replace(",", ".") if _DECIMAL_COMMA.fullmatch(text) else text


def patient_fault(text: str) -> tuple[str, str] | None:
    """Return fact and remedy where a cell cannot be the name of a patient; None where it can."""
    if not text:
        return "the column patient is empty", "name the patient"
    if text.casefold() in _NO_PATIENT:
        return "the column patient says that there is none", "name the patient"
    if _ROUNDED.fullmatch(text):
        remedy = "format the column as text there, and write the whole names again"
        return "the column patient holds a number that a spreadsheet has rounded", remedy
    return spreadsheet_fault("patient", text)


def spreadsheet_fault(column: str, text: str) -> tuple[str, str] | None:
    """Return fact and remedy where a cell holds a spreadsheet's error and no value."""
    if not text.startswith("#") or not _SPREADSHEET_ERROR.fullmatch(text):
        return None
    return f"the column {column} holds an error of a spreadsheet", "mend the formula, or fill it in"
