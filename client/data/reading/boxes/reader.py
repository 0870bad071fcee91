"""The way in: what a cell of the column boxes leads to, as boxes in voxels of its image."""

import re
from collections.abc import Callable
from pathlib import Path

from wardround.client.data.manifest.cells import ARRAY_FILES, parse_location
from wardround.client.data.manifest.examination import BoxCell, Location
from wardround.client.data.preprocessing.alignment import bring_onto
from wardround.client.data.reading.boxes.coco import read_coco
from wardround.client.data.reading.boxes.found import FoundBoxes
from wardround.client.data.reading.boxes.masks import boxes_of_mask
from wardround.client.data.reading.boxes.text import is_written_out, read_table, read_text
from wardround.client.data.reading.boxes.voc import read_voc
from wardround.client.data.reading.image import Image, MaskTarget, UnreadableError
from wardround.client.data.reading.readers import has_reader, read_mask, require_readable
from wardround.common.study.sections.data import DataSection

_TABLES = (".csv", ".tsv", ".txt")
_PART_OF_COCO = re.compile(r"(.+\.json)#(\d{1,18})", re.IGNORECASE | re.DOTALL)


def parse_cell(text: str, dimensions: int, find: Callable[[str], Path]) -> BoxCell:
    """Return what a cell holds: boxes as text, or where they lie.

    Args:
        text: The cell. ``boxes.json#17`` is the image of this id in a COCO file.
        dimensions: Of the study.
        find: Returns where a file lies.

    Raises:
        ValueError: What follows the name of an array file is not an array and an item.
    """
    if is_written_out(text, dimensions):
        return BoxCell(text)
    if part := _PART_OF_COCO.fullmatch(text):
        return BoxCell(location=Location(find(part[1]), None, int(part[2])))
    return BoxCell(location=parse_location(text, find))


def has_box_reader(path: Path) -> bool:
    """Return whether a file's name is one of a format that boxes are read from; opens nothing."""
    return path.suffix.lower() in (".json", ".xml", *_TABLES) or has_reader(path)


def read_boxes(
    cell: BoxCell,
    image: Image,
    source: Location,
    data: DataSection,
    words: dict[str, str] | None = None,
) -> FoundBoxes:
    """Return the boxes of one image, in its voxels as it was read.

    Args:
        cell: What the manifest says.
        image: The first channel as it was read.
        source: Where it lies, by which a file of many images knows it.
        data: The study's classes and dimensions.
        words: The site's words for the classes, which a mask's own names are looked up in.

    Raises:
        UnreadableError: The file cannot be used.
    """
    if cell.location is None:
        found = read_text(cell.text, data.dimensions)
    else:
        found = _of_file(cell.location, image, source, data, words or {})
    if image.is_turned and len(found.names) and not _is_placed(cell):
        msg = (
            "the columns and rows of its NIfTI image are turned to lie as radiology shows them, so "
            "that numbers of pixels do not say where a box is: name a mask in NIfTI instead."
        )
        raise UnreadableError(msg)
    return found


def _is_placed(cell: BoxCell) -> bool:
    """Return whether boxes come from a mask, which lies on the image's grid by itself."""
    return cell.location is not None and _reader(cell.location.path) is None


def _of_file(
    location: Location, image: Image, source: Location, data: DataSection, words: dict[str, str]
) -> FoundBoxes:
    require_readable(location.path)
    read = _reader(location.path)
    try:
        if read is not None:
            return read(location, source, data.dimensions)
        if report := _report(location.path):
            from wardround.client.data.reading.boxes.report import read_report

            return read_report(report, image, _instance(source.path))
        return _of_mask(location, image, data, words)
    except UnreadableError:
        raise
    except Exception as error:  # a damaged file breaks a reader in any way; its text names the file
        kind = type(error).__name__
        msg = f"the file is damaged or not what its name says ({kind}): replace it."
        raise UnreadableError(msg) from None


_Read = Callable[[Location, Location, int], FoundBoxes]


def _reader(path: Path) -> _Read | None:
    """Return the reader of a file of numbers; None for a mask or a DICOM object."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        return lambda at, source, dims: read_coco(at.path, dims, source.path, at.index)
    if suffix == ".xml":
        return lambda at, source, dims: read_voc(at.path, dims)
    if suffix in _TABLES:
        return lambda at, source, dims: read_table(at.path, dims, source.path)
    return None


def _report(path: Path) -> object | None:
    """Return a structured report; None where the file is none."""
    if path.is_dir() or path.suffix.lower() not in ("", ".dcm", ".dicom"):
        return None
    from wardround.client.data.reading.dicom.files import find_datasets

    dataset: object = find_datasets(path).datasets[0]
    return dataset if getattr(dataset, "Modality", "") == "SR" else None


def _instance(path: Path) -> str | None:
    if path.is_dir() or path.suffix.lower() in ARRAY_FILES:
        return None
    from wardround.client.data.reading.dicom.files import first_header

    header = first_header(path, ["SOPInstanceUID"])
    return None if header is None else str(header.get("SOPInstanceUID", "")) or None


def _of_mask(
    location: Location, image: Image, data: DataSection, words: dict[str, str]
) -> FoundBoxes:
    classes = ("nothing", *data.classes)
    target = MaskTarget(classes, image, words)
    mask = read_mask(location, data.dimensions, len(classes), target=target)
    mask = bring_onto(mask, image, data.resample_to == "image", is_mask=True)
    return boxes_of_mask(mask.array[0], data.classes)
