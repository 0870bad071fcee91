"""From a file to an array with its geometry: NIfTI, DICOM, PNG and JPEG, NumPy arrays."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.manifest.cells import ARRAY_FILES
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.array_files import read_item
from wardround.client.data.reading.image import Image, MaskTarget, Stored, UnreadableError
from wardround.client.data.reading.labels import check_labels
from wardround.common.files.account import this_account
from wardround.common.runtime.system.files import may_use

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow has it
PICTURE_FILES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")


def read_image(location: Location, dimensions: int, colour: bool = False) -> Image:
    """Read one image.

    Args:
        location: A NIfTI file, a DICOM file or the folder of one series, a PNG, JPEG, BMP, TIFF or
            GIF file, or an item of an array file.
        dimensions: 2 for ``(rows, columns)``, 3 for ``(x, y, z)``.
        colour: Whether to give red, green and blue (grey is repeated) or one grey plane.

    Returns:
        ``(1 or 3, *spatial)`` float32.

    Raises:
        UnreadableError: The file is missing, damaged, empty, not finite, or not of this shape.
    """
    stored = _read(location, dimensions, is_mask=False)
    array = sort_planes(stored.values[np.newaxis], dimensions, colour)[0]
    check_finite(array)
    return _image(array, stored, dimensions, stored.values.dtype == np.uint8)


def read_mask(
    location: Location,
    dimensions: int,
    class_count: int,
    ignore_label: int | None = None,
    target: MaskTarget | None = None,
) -> Image:
    """Read one mask of class indices.

    A picture file of two classes may mark the foreground with white, which is then class 1.

    Args:
        location: As for :func:`read_image`, or a DICOM segmentation or structure set.
        dimensions: As for :func:`read_image`.
        class_count: How many classes the study has, the background included.
        ignore_label: The label of voxels that nobody annotated, if the study has one.
        target: Its classes and the image, for formats that name what they outline.

    Returns:
        ``(1, *spatial)`` uint8, or int16 for many classes; ``class_count`` where it is ignored.

    Raises:
        UnreadableError: As for :func:`read_image`, or a label is none of the study.
    """
    target = target or MaskTarget(tuple(str(label) for label in range(class_count)))
    stored = _read(location, dimensions, is_mask=True, target=target)
    values = stored.values[np.newaxis]
    if values.ndim == dimensions + 2 and values.shape[-1] in (3, 4):
        values = _one_plane(values)
    picture = ("lossy" if stored.is_lossy else "exact") if _is_picture(location.path) else ""
    array = check_labels(sort_labels(values, dimensions), class_count, ignore_label, picture)[0]
    return _image(array, stored, dimensions, eight_bit=False)


def read_stored(location: Location, dimensions: int) -> Stored:
    """Read what a file holds, to see that it is whole; its axes may be any.

    Args:
        location: As for :func:`read_image`.
        dimensions: As for :func:`read_image`.

    Raises:
        UnreadableError: The file is missing, damaged, empty or not finite.
    """
    stored = _read(location, dimensions, is_mask=True, is_whole=True)
    if stored.values.size == 0:
        msg = "it has no pixels: replace it."
        raise UnreadableError(msg)
    if stored.values.dtype.kind == "f":
        check_finite(stored.values)
    return stored


def _image(array: NDArray[Any], stored: Stored, dimensions: int, eight_bit: bool) -> Image:
    """Return an array with the geometry of what was stored."""
    return Image(
        array,
        _spacing(stored, dimensions),
        stored.affine,
        eight_bit,
        stored.is_unplaced,
        stored.is_turned,
        stored.rounding,
        stored.notes,
        stored.frame,
        stored.is_matched,
    )


def sort_planes(values: NDArray[Any], dimensions: int, colour: bool) -> NDArray[np.float32]:
    """Return stored items ``(N, ...)`` as ``(N, planes, *spatial)`` float32.

    Raises:
        UnreadableError: The items have neither the dimensions nor a plane or colour axis more.
    """
    if dimensions == 2 and values.ndim == 4 and values.shape[-1] in (3, 4):
        rgb = values[..., :3].astype(np.float32)
        planes = np.moveaxis(rgb, -1, 1) if colour else (rgb @ _LUMA)[:, np.newaxis]
        return np.ascontiguousarray(planes)
    grey = _drop_plane_axis(values, dimensions)[:, np.newaxis].astype(np.float32)
    return np.repeat(grey, 3, axis=1) if colour else grey


def sort_labels(values: NDArray[Any], dimensions: int) -> NDArray[Any]:
    """Return stored masks ``(N, ...)`` as ``(N, 1, *spatial)``."""
    return _drop_plane_axis(values, dimensions)[:, np.newaxis]


def _drop_plane_axis(values: NDArray[Any], dimensions: int) -> NDArray[Any]:
    if values.ndim == dimensions + 2:
        if values.shape[-1] == 1:
            values = values[..., 0]
        elif values.shape[1] == 1:
            values = values[:, 0]
    if values.ndim != dimensions + 1:
        shape = "x".join(str(size) for size in values.shape[1:])
        msg = f"its shape is {shape} for a {dimensions}D study: name a {dimensions}D image."
        raise UnreadableError(msg)
    if values.size == 0:
        msg = "it has no pixels: replace it."
        raise UnreadableError(msg)
    return values


def check_finite(array: NDArray[np.float32]) -> None:
    """Refuse an image with NaN or infinite values.

    Args:
        array: Of any shape.

    Raises:
        UnreadableError: A value is NaN or infinite.
    """
    if not np.isfinite(array).all():
        msg = "it holds values that are not finite: replace them in the file."
        raise UnreadableError(msg)


def _one_plane(values: NDArray[Any]) -> NDArray[Any]:
    rgb = values[..., :3]
    if (rgb != rgb[..., :1]).any():
        msg = "it is a coloured picture, not a mask: save class indices as grey values."
        raise UnreadableError(msg)
    return rgb[..., :1]


def _read(
    location: Location,
    dimensions: int,
    is_mask: bool,
    target: MaskTarget | None = None,
    is_whole: bool = False,
) -> Stored:
    path = location.path
    require_readable(path)
    try:
        if path.suffix.lower() in ARRAY_FILES:
            return Stored(read_item(location))
        if _is_dicom(path):
            return _read_dicom(
                location, dimensions, target or MaskTarget() if is_mask else None, is_whole
            )
        if location.array is not None:
            msg = "what follows '#' in its cell chooses among DICOM files, and it is none: drop it."
            raise UnreadableError(msg)
        return _reader_of(path)(location, dimensions, is_mask)
    except UnreadableError:
        raise
    except Exception as error:  # a damaged file breaks a reader in any way; its text names the file
        kind = type(error).__name__
        msg = f"the file is damaged or not what its name says ({kind}): replace it."
        raise UnreadableError(msg) from None


def require_readable(path: Path) -> None:
    """Check that this account may read a file, or the files of a folder.

    Raises:
        UnreadableError: It may not, or nothing is there.
    """
    try:
        is_there = path.exists()
        files = [path, *path.iterdir()] if path.is_dir() else [path]
        if is_there and not path.is_dir() and not path.is_file():  # a pipe would never end
            msg = "it is no file and no folder: name the image itself."
            raise UnreadableError(msg)
        if is_there and all(may_use(one, os.R_OK) for one in files):
            return
    except PermissionError:
        is_there = True
    if is_there:
        account = this_account().name
        msg = (
            f"the account {account} may not read the file: give it the right to read it, and to "
            "enter its folders."
        )
        raise UnreadableError(msg)
    msg = "the file is missing: put it there, or mend the manifest."
    raise UnreadableError(msg)


def _reader_of(path: Path) -> Callable[[Location, int, bool], Stored]:
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return _read_nifti
    if _is_picture(path):
        return _read_picture
    msg = "its format is unknown: use NIfTI, DICOM, PNG, JPEG, TIFF, BMP, GIF, .npy or .npz."
    raise UnreadableError(msg)


def _is_dicom(path: Path) -> bool:
    if path.name.lower().endswith((".nii", ".nii.gz")) or _is_picture(path):
        return False
    suffix = path.suffix.lower()
    # A number is the end of a UID, which such a file is often named by.
    return suffix in ("", ".dcm", ".dicom", ".ima") or suffix[1:].isdecimal() or path.is_dir()


def has_reader(path: Path) -> bool:
    """Return whether a file's name is one of a format that can be read; opens nothing."""
    if path.suffix.lower() in ARRAY_FILES or _is_dicom(path):
        return True
    try:
        _reader_of(path)
    except UnreadableError:
        return False
    return True


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_FILES


def _spacing(stored: Stored, dimensions: int) -> tuple[float, ...] | None:
    if stored.spacing is None:
        return None
    spacing = stored.spacing[:dimensions]
    if len(spacing) < dimensions or not all(0 < step < float("inf") for step in spacing):
        msg = "its header gives no positive voxel size: mend the header."
        raise UnreadableError(msg)
    return spacing


def _read_nifti(location: Location, dimensions: int, is_mask: bool) -> Stored:
    from wardround.client.data.reading.nifti import read_nifti

    return read_nifti(location.path, dimensions, (location.index, location.count))


def _read_dicom(
    location: Location, dimensions: int, target: MaskTarget | None, is_whole: bool
) -> Stored:
    from wardround.client.data.reading.dicom import reader

    if is_whole:
        return reader.read_dicom_whole(location.path, dimensions, location.array)
    if target is None:
        return reader.read_dicom(location.path, dimensions, location.array)
    return reader.read_dicom_mask(location.path, dimensions, target, location.array)


def _read_picture(location: Location, dimensions: int, is_mask: bool) -> Stored:
    from wardround.client.data.reading.pictures import read_picture

    return read_picture(location.path, is_mask)
