"""From a file to an array with its geometry: NIfTI, DICOM, PNG and JPEG, NumPy arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.manifest.cells import ARRAY_FILES
from wardround.client.data.manifest.examination import Location
from wardround.client.data.reading.array_files import read_item
from wardround.client.data.reading.image import Image, MaskTarget, Stored, UnreadableError

if TYPE_CHECKING:
    import PIL.Image

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow has it
_PICTURE_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF")
_BINARY_THRESHOLD = 127  # the middle of 8 bits: JPEG leaves greys around black and white


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
    eight_bit = stored.values.dtype == np.uint8
    spacing = _spacing(stored, dimensions)
    return Image(array, spacing, stored.affine, eight_bit, stored.notes, stored.frame)


def read_mask(
    location: Location, dimensions: int, class_count: int, target: MaskTarget | None = None
) -> Image:
    """Read one mask of class indices.

    A picture file with two classes may mark the foreground with white: above 127 is class 1.

    Args:
        location: As for :func:`read_image`, or a DICOM segmentation or structure set.
        dimensions: Of the study.
        class_count: Of the study.
        target: Its classes and the image, for formats that name what they outline.

    Returns:
        ``(1, *spatial)`` uint8, or int16 for more than 256 classes.

    Raises:
        UnreadableError: As for :func:`read_image`, or a label is not in 0 .. ``class_count`` - 1.
    """
    target = target or MaskTarget(tuple(str(label) for label in range(class_count)))
    stored = _read(location, dimensions, is_mask=True, target=target)
    values = stored.values[np.newaxis]
    if values.ndim == dimensions + 2 and values.shape[-1] in (3, 4):
        values = _one_plane(values)
    array = check_labels(
        sort_labels(values, dimensions), class_count, binary=_is_picture(location.path)
    )[0]
    spacing = _spacing(stored, dimensions)
    return Image(array, spacing, stored.affine, notes=stored.notes, frame=stored.frame)


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


def check_labels(values: NDArray[Any], class_count: int, binary: bool = False) -> NDArray[Any]:
    """Return a mask as small integers.

    Args:
        values: Any numbers.
        class_count: How many labels there may be.
        binary: Whether white (above 127) may stand for class 1 of two.

    Returns:
        The shape of ``values``.

    Raises:
        UnreadableError: A value is no label of the study.
    """
    if binary and class_count == 2 and values.max() > _BINARY_THRESHOLD:
        return (values > _BINARY_THRESHOLD).astype(np.uint8)
    low, high = float(values.min()), float(values.max())
    whole = values.dtype.kind in "bui" or bool((values == np.floor(values)).all())
    if not whole or not (low >= 0 and high < class_count):
        msg = (
            f"its labels go from {low:g} to {high:g}, but the study has the labels "
            f"0 to {class_count - 1}: map them to whole numbers in that range."
        )
        raise UnreadableError(msg)
    return values.astype(np.uint8 if class_count <= 256 else np.int16)


def _one_plane(values: NDArray[Any]) -> NDArray[Any]:
    rgb = values[..., :3]
    if (rgb != rgb[..., :1]).any():
        msg = "it is a coloured picture, not a mask: save class indices as grey values."
        raise UnreadableError(msg)
    return rgb[..., :1]


def _read(
    location: Location, dimensions: int, is_mask: bool, target: MaskTarget | None = None
) -> Stored:
    path = location.path
    if not path.exists():
        msg = "the file is missing: put it there, or mend the manifest."
        raise UnreadableError(msg)
    try:
        if path.suffix.lower() in ARRAY_FILES:
            return Stored(read_item(location))
        if _is_dicom(path):
            return _read_dicom(location, dimensions, target or MaskTarget() if is_mask else None)
        if location.array is not None:
            msg = "what follows '#' in its cell chooses among DICOM files, and it is none: drop it."
            raise UnreadableError(msg)
        return _reader_of(path)(path, dimensions, is_mask)
    except UnreadableError:
        raise
    except Exception as error:  # a damaged file breaks a reader in any way; its text names the file
        kind = type(error).__name__
        msg = f"the file is damaged or not what its name says ({kind}): replace it."
        raise UnreadableError(msg) from None


def _reader_of(path: Path) -> Callable[[Path, int, bool], Stored]:
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
    return path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")


def _spacing(stored: Stored, dimensions: int) -> tuple[float, ...] | None:
    if stored.spacing is None:
        return None
    spacing = stored.spacing[:dimensions]
    if len(spacing) < dimensions or not all(0 < step < float("inf") for step in spacing):
        msg = "its header gives no positive voxel size: mend the header."
        raise UnreadableError(msg)
    return spacing


_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}


def _read_dicom(location: Location, dimensions: int, target: MaskTarget | None) -> Stored:
    from wardround.client.data.reading.dicom.reader import read_dicom, read_dicom_mask

    if target is None:
        return read_dicom(location.path, dimensions, location.array)
    return read_dicom_mask(location.path, dimensions, target, location.array)


def _read_nifti(path: Path, dimensions: int, is_mask: bool) -> Stored:
    import nibabel

    image = nibabel.load(path)
    values = np.asarray(image.dataobj)
    if values.dtype.kind not in "buif":
        msg = "its voxels are not real numbers: save them as such."
        raise UnreadableError(msg)
    unit = _MILLIMETRES.get(image.header.get_xyzt_units()[0], 1.0)
    spacing = tuple(float(step) * unit for step in image.header.get_zooms())
    affine = np.diag([unit, unit, unit, 1.0]) @ image.affine
    return Stored(values, spacing, affine)


def _read_picture(path: Path, dimensions: int, is_mask: bool) -> Stored:
    import PIL.Image
    import PIL.ImageOps

    with PIL.Image.open(path, formats=_PICTURE_FORMATS) as picture:
        _check_depth(picture)
        if (count := getattr(picture, "n_frames", 1)) > 1:
            msg = f"it holds {count} pictures: save each as a file of its own, or all as one array."
            raise UnreadableError(msg)
        turned = PIL.ImageOps.exif_transpose(picture)
        mode = turned.mode
        if mode == "LA":
            turned = turned.convert("L")
        elif is_mask and mode in ("P", "1"):
            pass  # the indices are the labels
        elif mode == "1":
            turned = turned.convert("L")
        elif mode not in ("L", "I", "F", "RGB") and not mode.startswith("I;16"):
            turned = turned.convert("RGB")
        return Stored(np.asarray(turned))


def _check_depth(picture: "PIL.Image.Image") -> None:
    """Refuse colours of 16 bits, of which Pillow would keep 8 without a word.

    Raises:
        UnreadableError: The file holds such colours.
    """
    tiles = getattr(picture, "tile", ())  # how the file's numbers lie, e.g. "RGB;16B"
    deep = any("16" in str(part) for tile in tiles for part in _arguments(tile[3]))
    if deep and picture.mode in ("RGB", "RGBA", "LA"):
        msg = (
            "its colours have 16 bits, of which only 8 could be read: save it as an array "
            "(.npy, rows x columns x 3), or with 8 bits."
        )
        raise UnreadableError(msg)


def _arguments(decoder: Any) -> tuple[Any, ...]:
    return decoder if isinstance(decoder, tuple) else (decoder,)
