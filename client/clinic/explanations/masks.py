"""Where a lesion lies, on the grid that the network sees: what maps are held against."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.manifest.cells import parse_location
from wardround.client.data.manifest.columns import LESION_MASK, SOURCE_ROW
from wardround.client.data.manifest.examination import Examination, Location
from wardround.client.data.manifest.files import FileFinder
from wardround.client.data.manifest.table import Table, read_table
from wardround.client.data.preprocessing.preprocessing import prepare_case, prepare_mask
from wardround.client.data.reading.image import UnreadableError
from wardround.client.data.reading.readers import read_image
from wardround.client.site.folder import Site
from wardround.client.tasks.words import tidy
from wardround.common.errors import DataError, InputError
from wardround.common.study.study import Study

_ENDINGS = (".png", ".nii.gz", ".nii", ".tif", ".tiff", ".bmp", ".npy", ".gif")
_SUFFIXES = ("", "_segmentation", "_mask", "_seg", "-mask")  # of a mask named after its image
_CLASSES = ("background", "lesion")
_PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")
_WHITE = 127  # greys beyond are the lesion: borders are often smoothed


def lesion_masks(site: Site, wanted: str | None) -> Mapping[int, Location] | Path:
    """Return where the masks of a site's examinations lie: by row, or a folder of them.

    Args:
        wanted: A folder with a mask an image, named after it; or a column of the manifest. None
            takes the column ``lesion_mask``, where there is one.

    Raises:
        InputError: There is no such folder or column.
    """
    if wanted is not None and Path(wanted).is_dir():
        return Path(wanted)
    column = LESION_MASK if wanted is None else wanted
    table, root = read_table(site.manifest_path), site.data_root
    own = site.settings.rows_of
    if table.place(column) is None and own is not None:  # a simulated site: the researcher's file
        table, root = read_table(Path(own)), Path(own).parent
    place = table.place(column)
    if place is None:
        if wanted is None:
            return {}
        named = ", ".join(name for name in table.header if name)
        msg = (
            f"--masks {wanted!r} is neither a folder nor a column of the manifest, which has: "
            f"{named}. Name one of them."
        )
        raise InputError(msg)
    return _by_row(table, place, FileFinder(root))


def _by_row(table: Table, place: int, finder: FileFinder) -> dict[int, Location]:
    numbered = table.place(SOURCE_ROW)
    found = {}
    for line in table.lines:
        cell = tidy(line.cells[place])
        if not cell:
            continue
        row = line.row if numbered is None else int(line.cells[numbered] or line.row)
        try:
            found[row] = parse_location(cell, lambda file: finder.find(file).path)
        except ValueError:
            msg = (
                f"row {row}: the column of masks does not name an item: write file.npy#17, "
                "file.npz#array#17 or scan.nii.gz#0."
            )
            raise DataError(msg) from None
    return found


def lesion_mask(
    examination: Examination, masks: Mapping[int, Location] | Path, site: Site, study: Study
) -> NDArray[np.bool_] | None:
    """Return ``(*spatial)`` where the lesion lies, prepared as the image is; None without a mask.

    A picture is white where the lesion is (greys beyond 127), whatever its palette.

    Raises:
        DataError: A mask cannot be read, or does not lie on its image; says the row.
    """
    location = (
        _named_after(examination, masks) if isinstance(masks, Path) else masks.get(examination.row)
    )
    if location is None:
        return None
    if location.path.suffix.lower() in _PICTURES:
        return _of_picture(location, examination, study)
    data = study.data.model_copy(update={"classes": _CLASSES, "multi_label": False})
    about = study.study.model_copy(update={"task": "segmentation"})
    marked = study.model_copy(update={"data": data, "study": about})
    case = prepare_case(replace(examination, label=None, mask=location), site, marked)
    return None if case.mask is None else case.mask.numpy() == 1


def _of_picture(location: Location, examination: Examination, study: Study) -> NDArray[np.bool_]:
    """Return where a picture is white as it is seen, palette or not; of 0 and 1 where it is 1."""
    data = study.data
    try:
        first = read_image(examination.held_images[0], data.dimensions, data.colour)
        mask = read_image(location, data.dimensions, colour=False)
        least = _WHITE if float(mask.array.max()) > 1 else 0
        marked = replace(mask, array=(mask.array > least).astype(np.uint8))
        inside: NDArray[np.bool_] = prepare_mask(marked, first, data)[1] == 1
    except UnreadableError as error:
        raise error.at(examination.row, "of masks") from None
    return inside


def _named_after(examination: Examination, folder: Path) -> Location | None:
    name = examination.held_images[0].path.name
    stem = name.removesuffix(".gz").rpartition(".")[0] or name
    for suffix in _SUFFIXES:
        for ending in _ENDINGS:
            path = folder / f"{stem}{suffix}{ending}"
            if path.is_file():
                return Location(path)
    return None
