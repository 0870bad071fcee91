"""What is to be predicted: files, folders, array items, manifests; each with a name of its own."""

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wardround.client.data.manifest.cells import ARRAY_FILES, parse_location
from wardround.client.data.manifest.examination import Location
from wardround.client.data.manifest.files import FileFinder
from wardround.client.data.manifest.table import read_table
from wardround.client.data.reading.array_files import open_array
from wardround.client.data.reading.image import Image, UnreadableError, fill_absent
from wardround.client.data.reading.readers import PICTURE_FILES, has_reader, read_image
from wardround.client.site.folder import SITE_FILE, open_site
from wardround.client.tasks.words import tidy
from wardround.common.errors import DataError, InputError
from wardround.common.study.sections.data import DataSection
from wardround.common.study.study import Study

_TABLES = (".csv",)
_DICOM = (".dcm", ".dicom", ".ima")
_NO_DICOM = (*PICTURE_FILES, *ARRAY_FILES, ".nii", ".gz")
_GREY_PNG = (0, 4)  # a PNG's colour types without colours: W3C, section 11.2.1
_COLOURS = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
_COLOUR_TOLERANCE = 8  # of 255 on average: JPEG leaves a little colour in a grey picture
_LONGEST_NAME = 80
_SCANNER = "scanner"


@dataclass(frozen=True, slots=True)
class Input:
    """One examination that is to be predicted.

    Attributes:
        text: What the user's tables call it: its path, with the item of an array file.
        locations: One image a channel, None for one that it lacks; empty for a table study.
        covariates: Texts of the study's covariates; "" where one is missing.
        row: Of a manifest; 0 for a file that was named itself.
        scanner: As a manifest's column of that name says; "" where there is none.
        key: Tells this input, as it lay on the disk when it was found, from every other.
    """

    text: str
    locations: tuple[Location | None, ...]
    covariates: tuple[str, ...] = ()
    row: int = 0
    scanner: str = ""
    key: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self._key())

    @property
    def held(self) -> tuple[Location, ...]:
        """The images that it does not lack; at least one, but for a table study."""
        return tuple(location for location in self.locations if location is not None)

    @property
    def stem(self) -> str:
        """A name for what is written about it, which may not be its own alone."""
        if not self.held:
            return f"row-{self.row}"
        first = self.held[0]
        name = re.sub(r"(\.nii)?(\.gz)?$|\.[A-Za-z]{1,5}$", "", first.path.name, count=1)
        item = "" if first.index is None else f"-{first.index}"
        array = "" if first.array is None else f"-{first.array}"
        return _safe(f"{name}{array}{item}")

    def _key(self) -> str:
        parts = [self.text, str(self.row), *self.covariates]
        for location in self.locations:
            parts.extend(("",) if location is None else _state(location.path))
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
    stems = [one.stem for one in inputs]
    counts = Counter(stem.casefold() for stem in stems)
    used = {name.casefold() for name in taken.values()}
    names = []
    for one, stem in zip(inputs, stems, strict=True):
        name = taken.get(one.key)
        if name is None:
            candidates = _candidates(one, stem, counts[stem.casefold()] > 1)
            name = next(some for some in candidates if some.casefold() not in used)
            used.add(name.casefold())
        names.append(name)
    return names


def read_images(one: Input, study: Study) -> tuple[Image, ...]:
    """Return the images of an input as they are, one a channel; zeros for one that it lacks.

    Raises:
        DataError: A file cannot be used, or is a coloured picture for a study of grey ones; or it
            lacks an image that the model needs.
    """
    if one.locations:
        require_channels([location is not None for location in one.locations], study.data)
    images: list[Image | None] = []
    for location in one.locations:
        if location is None:
            images.append(None)
            continue
        if not study.data.colour and _is_coloured(location.path):
            msg = "it is a coloured picture, and the model was trained on grey ones."
            raise UnreadableError(msg)
        images.append(read_image(location, study.data.dimensions, study.data.colour))
    return fill_absent(images) if images else ()


def require_channels(held: Sequence[bool], data: DataSection) -> None:
    """Check that an examination has the images that it may not lack.

    Args:
        held: Whether it has each channel, in the study's order.
        data: Says which are optional.

    Raises:
        DataError: It has not; names them.
    """
    lacking = [name for name, has in zip(data.channels, held, strict=True) if not has]
    if unusual := [name for name in lacking if name not in data.optional_channels]:
        msg = (
            f"it lacks the channel {', '.join(unusual)}, and the model was not trained to do "
            "without: give it."
        )
        raise DataError(msg)


def modality_of(one: Input) -> str | None:
    """Return the modality that a DICOM input says; None for any other file."""
    if not one.held:
        return None
    path = one.held[0].path
    if path.suffix.lower() in _NO_DICOM:
        return None
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
    if not text.strip():  # Path("") is the working folder
        msg = "an empty name was given for images: is a shell variable not set? . is this folder."
        raise InputError(msg)
    try:
        location = parse_location(text, Path)
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
    known = name.endswith((".nii", ".nii.gz", *PICTURE_FILES, *ARRAY_FILES))
    return path in series or (known and has_reader(path))


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() in _NO_DICOM or not path.is_file() or path.name.upper() == "DICOMDIR":
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
        table = read_table(manifest)
    except DataError as error:
        raise InputError(str(error)) from None
    root = manifest.parent
    if (root / SITE_FILE).is_file():
        root = open_site(root).data_root
    images = _columns(study)
    covariates = tuple(covariate.name for covariate in study.data.covariates)
    own = f"image.{study.data.channels[0]}" if study.data.channels else ""
    if len(images) == 1 and not table.places("image") and table.places(own):
        images = (own,)
    optional = _optional_columns(images, study)
    if missing := [
        name for name in (*images, *covariates) if not table.places(name) and name not in optional
    ]:
        msg = f"{manifest} lacks the column {', '.join(missing)}: add it, separated by commas."
        raise InputError(msg)
    places = {name: table.places(name)[0] for name in (*images, *covariates) if table.places(name)}
    scanners = table.places(_SCANNER)
    files = FileFinder(root)
    for line in table.lines:
        texts = {name: line.cells[place] for name, place in places.items()}
        yield _row(
            (manifest, line.row),
            [texts.get(name, "") for name in images],
            files,
            [tidy(texts.get(name, "")) for name in covariates],
            tidy(line.cells[scanners[0]])[:_LONGEST_NAME] if scanners else "",
        )


def _optional_columns(images: Sequence[str], study: Study) -> set[str]:
    """Return the columns of a manifest that an examination may lack."""
    channels = zip(images, study.data.channels, strict=False)  # a table study has no images
    optional = study.data.optional_channels
    return {*(n for n, one in channels if one in optional), *study.data.optional_covariates}


def _row(
    place: tuple[Path, int],
    images: Sequence[str],
    files: FileFinder,
    covariates: Iterable[str],
    scanner: str,
) -> Input:
    """Return what a row names.

    Args:
        images: The text of each channel's cell. Where one is empty that may not be, it is said when
            the examination is read, and stops no other.
    """
    manifest, number = place
    named = [text for text in images if tidy(text)]
    try:
        if images and not named:
            raise ValueError
        locations = tuple(
            parse_location(text, lambda name: files.find(name).path) if tidy(text) else None
            for text in images
        )
    except ValueError:
        msg = f"{manifest}: row {number} names no image: name a file, or file.npz#array#17."
        raise InputError(msg) from None
    text = tidy(named[0]) if named else str(manifest)
    return Input(text, locations, tuple(covariates), number, scanner)


def _is_coloured(path: Path) -> bool:
    """Return whether a picture file shows colours; looks at no other file."""
    if path.suffix.lower() not in PICTURE_FILES:
        return False
    import numpy as np
    import PIL.Image

    try:
        with path.open("rb") as stream:  # most are grey PNG files, which their first bytes say
            begin = stream.read(26)
        if begin[:4] == b"\x89PNG" and begin[-1] in _GREY_PNG:
            return False
        with PIL.Image.open(path) as picture:
            if picture.mode not in _COLOURS:
                return False
            picture.thumbnail((256, 256))
            planes = np.asarray(picture.convert("RGB"), dtype=np.int16)
    except Exception:  # the reader says what is wrong with the file
        return False
    return float((planes.max(-1) - planes.min(-1)).mean()) > _COLOUR_TOLERANCE


def _candidates(one: Input, name: str, is_shared: bool) -> Iterator[str]:
    if not is_shared:
        yield name
    folders = [*one.held[0].path.absolute().parts[1:-1]] if one.held else []
    for folder in reversed(folders):
        name = _safe(f"{folder}_{name}")
        yield name
    yield from (_safe(f"{name}-{number}") for number in range(2, 10**9))


def _safe(name: str) -> str:
    """Return a file name that any disk takes; its end tells more than its beginning."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "image"
    return plain[-_LONGEST_NAME:]


def _state(path: Path) -> Iterator[str]:
    yield os.path.abspath(path)
    try:
        found = path.stat()
    except OSError:
        return
    yield f"{found.st_size} {found.st_mtime_ns}"
    if stat.S_ISDIR(found.st_mode):
        for file in sorted(path.iterdir()):
            yield f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}"
