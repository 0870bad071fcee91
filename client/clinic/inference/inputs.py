"""What is to be predicted: files, folders, array items, manifests; each with a name of its own."""

import csv
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wardround.client.data.manifest.cells import ARRAY_FILES, parse_location
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.array_files import open_array
from wardround.client.data.reading.image import Image, UnreadableError
from wardround.client.data.reading.readers import has_reader, read_image
from wardround.client.site.folder import SITE_FILE, open_site
from wardround.common.errors import InputError
from wardround.common.study.study import Study

_TABLES = (".csv",)
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")
_DICOM = (".dcm", ".dicom", ".ima")
_COLOURS = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
_COLOUR_TOLERANCE = 8  # of 255 on average: JPEG leaves a little colour in a grey picture
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Input:
    """One examination that is to be predicted.

    Attributes:
        text: What the user's tables call it: its path, with the item of an array file.
        locations: One image a channel; empty for a table study.
        covariates: Texts of the study's covariates; "" where one is missing.
        row: Of a manifest; 0 for a file that was named itself.
    """

    text: str
    locations: tuple[Location, ...]
    covariates: tuple[str, ...] = ()
    row: int = 0

    @property
    def stem(self) -> str:
        """A name for what is written about it, which may not be its own alone."""
        if not self.locations:
            return f"row-{self.row}"
        first = self.locations[0]
        name = re.sub(r"(\.nii)?(\.gz)?$|\.[A-Za-z]{1,5}$", "", first.path.name, count=1)
        item = "" if first.index is None else f"-{first.index}"
        array = "" if first.array is None else f"-{first.array}"
        return _safe(f"{name}{array}{item}")

    @property
    def key(self) -> str:
        """Tells this input, as it lies on the disk now, from every other."""
        parts = [self.text, str(self.row), *self.covariates]
        for location in self.locations:
            parts.extend(_state(location.path))
        return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()


def find_inputs(given: Sequence[str], study: Study) -> list[Input]:
    """Return the examinations that a user names, in order, each once.

    Args:
        given: Files, folders (also within them), ``file.npy#3``, ``set.npz#array``, and manifests
            (CSV with a column ``image``, or ``image.CHANNEL`` for several channels).
        study: Says channels, dimensions and covariates.

    Raises:
        InputError: One is not there, or holds nothing that could be predicted.
    """
    found: dict[tuple[str, int], Input] = {}
    for text in given:
        some = list(_found(text, study))
        if not some:
            msg = f"{text} holds no image: name files, folders of images, or a manifest."
            raise InputError(msg)
        found.update({(one.text, one.row): one for one in some})
    return list(found.values())


def names_of(inputs: Sequence[Input], taken: Mapping[str, str]) -> list[str]:
    """Return a name for each input that no other has, whatever capitals a disk tells apart.

    Inputs of the same file name are told apart by the folders that they lie in.

    Args:
        taken: Names that were given before, by the inputs' keys.
    """
    counts = Counter(one.stem.casefold() for one in inputs)
    used = {name.casefold() for name in taken.values()}
    names = []
    for one in inputs:
        name = taken.get(one.key)
        if name is None:
            candidates = _candidates(one, counts[one.stem.casefold()] > 1)
            name = next(some for some in candidates if some.casefold() not in used)
            used.add(name.casefold())
        names.append(name)
    return names


def read_images(one: Input, study: Study) -> tuple[Image, ...]:
    """Return the images of an input as they are, one a channel.

    Raises:
        DataError: A file cannot be used, or is a coloured picture for a study of grey ones.
    """
    images = []
    for location in one.locations:
        if not study.data.colour and _is_coloured(location.path):
            msg = "it is a coloured picture, and the model was trained on grey ones."
            raise UnreadableError(msg)
        images.append(read_image(location, study.data.dimensions, study.data.colour))
    return tuple(images)


def modality_of(one: Input) -> str | None:
    """Return the modality that a DICOM input says; None for any other file."""
    if not one.locations:
        return None
    path = one.locations[0].path
    if path.is_dir():
        path = next((file for file in sorted(path.iterdir()) if _is_dicom(file)), path)
    if not _is_dicom(path):
        return None
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality"])
        return str(header.get("Modality") or "") or None
    except Exception:  # the reader says what is wrong with the file
        return None


def _found(text: str, study: Study) -> Iterator[Input]:
    try:
        location = parse_location(text, Path())
    except ValueError:
        msg = f"{text}: after '#' stands an array, an item, or both: file.npz#images#17."
        raise InputError(msg) from None
    path = location.path
    if not path.exists():
        msg = f"there is no file or folder {text}: mend the name."
        raise InputError(msg)
    if path.suffix.lower() in _TABLES:
        yield from _rows(path, study)
    elif study.data.kind == "table" or len(study.data.channels) > 1 or study.data.covariates:
        needed = ", ".join((*_columns(study), *(one.name for one in study.data.covariates)))
        msg = f"{text}: this model needs a manifest (CSV) with the columns {needed}."
        raise InputError(msg)
    elif path.is_dir():
        yield from _below(path, study)
    elif path.suffix.lower() in ARRAY_FILES and location.index is None:
        yield from _items(location, study)
    else:
        yield Input(text, (location,))


def _columns(study: Study) -> tuple[str, ...]:
    if study.data.kind == "table":
        return ()
    if len(study.data.channels) == 1:
        return ("image",)
    return tuple(f"image.{name}" for name in study.data.channels)


def _below(folder: Path, study: Study) -> Iterator[Input]:
    """Yield the images of a folder and those beneath it; a folder of DICOM files is one series."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(place) / name for name in sorted(files) if not name.startswith(".")]
        series = [path for path in paths if _is_dicom(path)]
        if series and study.data.dimensions == 3:
            yield Input(place, (Location(Path(place)),))
        others = set(series) if study.data.dimensions == 3 else set()
        for path in paths:
            if path in others or path.suffix.lower() in _TABLES or not _is_image(path, series):
                continue
            if path.suffix.lower() in ARRAY_FILES:
                yield from _items(Location(path), study)
            else:
                yield Input(str(path), (Location(path),))


def _is_image(path: Path, series: Sequence[Path]) -> bool:
    name = path.name.lower()
    known = name.endswith((".nii", ".nii.gz", *_PICTURES, *ARRAY_FILES))
    return path in series or (known and has_reader(path))


def _is_dicom(path: Path) -> bool:
    if not path.is_file() or path.name.upper() == "DICOMDIR":
        return False
    if path.suffix.lower() in _DICOM:
        return True
    if path.suffix and not path.suffix[1:].isdecimal():
        return False
    with path.open("rb") as stream:
        stream.seek(128)
        return stream.read(4) == b"DICM"


def _items(location: Location, study: Study) -> Iterator[Input]:
    """Yield the items of an array, or the array itself where it is one image."""
    try:
        values = open_array(location.path, location.array)
    except UnreadableError as error:
        msg = f"{location.path}: {error}"
        raise InputError(msg) from None
    dimensions = study.data.dimensions
    has_colours = dimensions == 2 and values.shape[-1:] and values.shape[-1] in (1, 3, 4)
    text = str(location.path) + (f"#{location.array}" if location.array else "")
    if values.ndim == dimensions or (values.ndim == dimensions + 1 and has_colours):
        yield Input(text, (location,))
        return
    for index in range(len(values)):
        yield Input(f"{text}#{index}", (Location(location.path, location.array, index),))


def _rows(manifest: Path, study: Study) -> Iterator[Input]:
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error):
        msg = f"{manifest} cannot be read: save it as a comma-separated file in UTF-8."
        raise InputError(msg) from None
    root = manifest.parent
    if (root / SITE_FILE).is_file():
        root = open_site(root).data_root
    images = _columns(study)
    covariates = tuple(covariate.name for covariate in study.data.covariates)
    header = {name.strip(): name for name in (rows[0] if rows else {}) if name}
    if len(images) == 1 and "image" not in header and f"image.{study.data.channels[0]}" in header:
        images = (f"image.{study.data.channels[0]}",)
    if missing := [name for name in (*images, *covariates) if name not in header]:
        msg = f"{manifest} lacks the column {', '.join(missing)}: add it, separated by commas."
        raise InputError(msg)
    for number, row in enumerate(rows, start=2):
        cells = {name: (row[own] or "").strip() for name, own in header.items()}
        yield _row(
            number,
            [cells[name] for name in images],
            (manifest, root),
            [cells[name] for name in covariates],
        )


def _row(
    number: int, images: Sequence[str], place: tuple[Path, Path], covariates: Iterable[str]
) -> Input:
    manifest, root = place
    try:
        if not all(images):
            raise ValueError
        locations = tuple(parse_location(text, root) for text in images)
    except ValueError:
        msg = f"{manifest}: row {number} names no image: name a file, or file.npz#array#17."
        raise InputError(msg) from None
    text = images[0] if images else str(manifest)
    return Input(text, locations, tuple(covariates), number)


def _is_coloured(path: Path) -> bool:
    """Return whether a picture file shows colours; looks at no other file."""
    if path.suffix.lower() not in _PICTURES or not path.is_file():
        return False
    import numpy as np
    import PIL.Image

    try:
        with PIL.Image.open(path) as picture:
            if picture.mode not in _COLOURS:
                return False
            picture.thumbnail((256, 256))
            planes = np.asarray(picture.convert("RGB"), dtype=np.int16)
    except Exception:  # the reader says what is wrong with the file
        return False
    return float((planes.max(-1) - planes.min(-1)).mean()) > _COLOUR_TOLERANCE


def _candidates(one: Input, is_shared: bool) -> Iterator[str]:
    folders = [*one.locations[0].path.absolute().parts[1:-1]] if one.locations else []
    name = one.stem
    if not is_shared:
        yield name
    for folder in reversed(folders):
        name = _safe(f"{folder}_{name}")
        yield name
    yield from (_safe(f"{name}-{number}") for number in range(2, 10**9))


def _safe(name: str) -> str:
    """Return a file name that any disk takes; its end tells more than its beginning."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "image"
    return plain[-_LONGEST_NAME:]


def _state(path: Path) -> Iterator[str]:
    yield str(path.absolute())
    try:
        found = path.stat()
    except OSError:
        return
    yield f"{found.st_size} {found.st_mtime_ns}"
    if path.is_dir():
        for file in sorted(path.iterdir()):
            yield f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}"
