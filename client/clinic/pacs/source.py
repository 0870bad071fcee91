"""The images that a result is of: sorted in space, and with values that may be copied from them.

A mask whose slices are in another order than its sources is a wrong mask that looks right, so no
caller sorts by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.clinic.pacs.archive import PacsError, checked_uid, silence_libraries, value_of

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME_PLACE = 0.05  # of a voxel
_SAME_DIRECTION = 1e-3  # of unit vectors
_LONGEST_NUMBER = 16  # characters (PS3.5, DS)
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


@dataclass(frozen=True, slots=True)
class Source:
    """The images of one series, without their pixels, in spatial order.

    Attributes:
        datasets: One a slice, along the slices' normal; or a single multi-frame object.
        affine: 4x4, from (column, row, slice) to RAS millimetres; None where they do not say.
        shape: (slices, rows, columns).
        frames: Of a multi-frame object: the place of each of its frames in spatial order.
    """

    datasets: tuple["Dataset", ...]
    affine: NDArray[np.float64] | None
    shape: tuple[int, int, int]
    frames: tuple[int, ...] | None = None

    @property
    def study_uid(self) -> str:
        """Of the study."""
        return str(self.datasets[0].StudyInstanceUID)

    @property
    def series_uid(self) -> str:
        """Of the series."""
        return str(self.datasets[0].SeriesInstanceUID)

    @property
    def modality(self) -> str:
        """What took the images, e.g. "MR"."""
        return value_of(self.datasets[0], "Modality")

    @property
    def voxel_ml(self) -> float | None:
        """Millilitres of a voxel; None where its size is not known."""
        if self.affine is None:
            return None
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000


def read_source(paths: Sequence[Path]) -> Source:
    """Read the images of one series, without their pixels.

    Raises:
        PacsError: They are not one series of images in one grid.
    """
    import pydicom

    silence_libraries()
    try:
        read = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    except Exception as error:  # of a foreign file anything may be wrong
        msg = f"an object of the series is no valid DICOM ({type(error).__name__})."
        raise PacsError(msg) from None
    return sort_source(read)


def sort_source(datasets: Sequence["Dataset"]) -> Source:
    """Return the images of one series in spatial order, whatever order they come in.

    Raises:
        PacsError: They are not one series of images in one grid.
    """
    if not datasets:
        msg = "a result needs the images that it is of, and there is none."
        raise PacsError(msg)
    for dataset in datasets:
        for keyword in _NEEDED:
            checked_uid(value_of(dataset, keyword), keyword)
    if len({value_of(one, "SeriesInstanceUID") for one in datasets}) > 1:
        msg = "the images are of several series: a result is of one."
        raise PacsError(msg)
    if len({value_of(one, "SOPInstanceUID") for one in datasets}) < len(datasets):
        msg = "an image of the series stands twice."
        raise PacsError(msg)
    sizes = {(_whole(one, "Rows"), _whole(one, "Columns")) for one in datasets}
    if len(sizes) > 1:
        msg = f"the images of the series have {len(sizes)} different sizes."
        raise PacsError(msg)
    rows, columns = sizes.pop()
    repaired = tuple(repair_copied(one) for one in datasets)
    if len(repaired) == 1 and _whole(repaired[0], "NumberOfFrames", 1) > 1:
        return _multi_frame(repaired[0], rows, columns)
    planes = [_plane([one]) for one in repaired]
    order, affine = _arrange(planes)
    return Source(tuple(repaired[at] for at in order), affine, (len(order), rows, columns))


def in_source_order(
    labels: NDArray[Any], affine: NDArray[Any] | None, source: Source
) -> NDArray[np.uint8]:
    """Return labels of a reader's grid as (slices, rows, columns) of the sources.

    Args:
        labels: (x, y, z) with an affine, or (rows, columns) of a single image.
        affine: 4x4, from the labels' voxels to RAS millimetres; None in 2D or where nothing says.

    Raises:
        PacsError: The labels lie on another grid than the images.
    """
    if labels.ndim == 2:
        turned = labels[np.newaxis]
    elif affine is None or source.affine is None:
        turned = labels.transpose(2, 1, 0)
    else:
        turned = _turn(labels, np.linalg.inv(source.affine) @ affine).transpose(2, 1, 0)
    if turned.shape != source.shape:
        raise PacsError(_other_grid(labels, source))
    if affine is not None and source.affine is not None and labels.ndim == 3:
        _check_corners(labels, affine, source)
    if source.frames is not None:
        turned = turned[np.argsort(np.array(source.frames))]
    return np.ascontiguousarray(turned).astype(np.uint8)


def _turn(labels: NDArray[Any], between: NDArray[Any]) -> NDArray[Any]:
    """Return labels with their axes as the images' are: exchanged and turned about, never mixed."""
    turning = np.rint(between[:3, :3]).astype(int)
    if not np.array_equal(np.abs(turning) @ np.ones(3), np.ones(3)):
        msg = "the labels lie on another grid than the images: it was turned or resampled."
        raise PacsError(msg)
    axes = [int(np.abs(turning[axis]).argmax()) for axis in range(3)]
    if sorted(axes) != [0, 1, 2]:
        msg = "the labels lie on another grid than the images: it was turned or resampled."
        raise PacsError(msg)
    turned = labels.transpose(axes)
    backwards = [axis for axis in range(3) if turning[axis, axes[axis]] < 0]
    return np.flip(turned, tuple(backwards)) if backwards else turned


def _check_corners(labels: NDArray[Any], affine: NDArray[Any], source: Source) -> None:
    """Make sure that the labels' outermost voxels are the images' outermost voxels."""
    ends = [np.array([x, y, z, 1.0]) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    size = np.array([*labels.shape, 2.0]) - 1
    own = np.array([source.shape[2], source.shape[1], source.shape[0]]) - 1.0
    back = np.linalg.inv(source.affine) @ affine if source.affine is not None else np.eye(4)
    for end in ends:
        place = (back @ (end * size))[:3]
        if np.any(np.minimum(np.abs(place), np.abs(place - own)) > _SAME_PLACE):
            raise PacsError(_other_grid(labels, source))


def _other_grid(labels: NDArray[Any], source: Source) -> str:
    shape, own = ("x".join(map(str, one)) for one in (labels.shape, source.shape))
    return (
        f"the labels ({shape}) lie on another grid than the images of the series ({own} slices, "
        "rows and columns): nothing is stored."
    )


def _multi_frame(dataset: "Dataset", rows: int, columns: int) -> Source:
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or ())
    groups = list(dataset.get("PerFrameFunctionalGroupsSequence") or ())
    if not groups:
        msg = "the series is a multi-frame image that does not say where its frames lie."
        raise PacsError(msg)
    planes = [_plane([group, *shared, dataset]) for group in groups]
    order, affine = _arrange(planes)
    return Source((dataset,), affine, (len(order), rows, columns), tuple(order))


@dataclass(frozen=True, slots=True)
class _Plane:
    position: NDArray[np.float64] | None
    directions: NDArray[np.float64] | None
    spacing: tuple[float, float] | None
    thickness: float


def _plane(places: Sequence["Dataset"]) -> _Plane:
    """Return where a slice lies, from a functional group or from the data set itself."""

    def look(sequence: str, keyword: str) -> Any:
        for place in places:
            items = place.get(sequence)
            value = (items[0] if items else place).get(keyword)
            if value is not None:
                return value
        return None

    try:
        position = look("PlanePositionSequence", "ImagePositionPatient")
        directions = look("PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = look("PixelMeasuresSequence", "PixelSpacing")
        thickness = look("PixelMeasuresSequence", "SliceThickness")
        return _Plane(
            None if position is None else np.array([float(one) for one in position]),
            None if directions is None else np.array([float(one) for one in directions]),
            None if spacing is None else (float(spacing[0]), float(spacing[1])),
            float(thickness or 1.0),
        )
    except (TypeError, ValueError, IndexError):
        msg = "an image of the series says in no valid way where it lies."
        raise PacsError(msg) from None


def _arrange(planes: Sequence[_Plane]) -> tuple[list[int], NDArray[np.float64] | None]:
    """Return the spatial order of slices, and the affine of the volume that they make."""
    first = planes[0]
    directions = [one.directions for one in planes if one.directions is not None]
    positions = [one.position for one in planes if one.position is not None]
    if len(directions) < len(planes) or len(positions) < len(planes) or first.spacing is None:
        if len(planes) > 1:
            msg = "images of the series do not say where they lie, so their order is not known."
            raise PacsError(msg)
        return [0], None
    if any(not np.allclose(one, directions[0], rtol=0, atol=_SAME_DIRECTION) for one in directions):
        msg = "the images of the series differ in orientation."
        raise PacsError(msg)
    normal = np.cross(directions[0][:3], directions[0][3:])
    depths = np.array([position @ normal for position in positions])
    order = np.argsort(depths, kind="stable").tolist()
    if len(order) > 1 and np.diff(depths[order]).min() <= 0:
        msg = "two images of the series lie at the same place: several volumes in one series."
        raise PacsError(msg)
    start = positions[order[0]]
    step = normal * first.thickness
    if len(order) > 1:
        step = (positions[order[-1]] - start) / (len(order) - 1)
    affine = np.eye(4)
    affine[:3, 0] = directions[0][:3] * first.spacing[1]
    affine[:3, 1] = directions[0][3:] * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, start
    return order, _LPS_TO_RAS @ affine


def _whole(dataset: "Dataset", keyword: str, default: int | None = None) -> int:
    text = value_of(dataset, keyword) or str(default or "")
    if not text.isdecimal() or not 0 < int(text) <= 65_535:
        msg = f"an image of the series has no valid {keyword}."
        raise PacsError(msg)
    return int(text)


def repair_copied(dataset: "Dataset") -> "Dataset":
    """Return a copy of an image's header whose values may stand in an object of ours.

    Objects of a study repeat what it says of patient and study. Values that DICOM does not allow
    are repaired where it is plain what was meant, and left out otherwise: no object of ours is
    wrong because its source is.
    """
    from pydicom import Dataset
    from pydicom.config import RAISE
    from pydicom.valuerep import validate_value

    kept = Dataset()
    kept.file_meta = getattr(dataset, "file_meta", None)
    for tag in list(dataset.keys()):
        try:
            element = _mended(dataset[tag])
            if element.VR not in ("SQ", "PN"):
                for one in _values(element):
                    text = str(one) if element.VR in ("DS", "IS") else one
                    validate_value(element.VR, text, RAISE)
            allowed = _ENUMERATED.get(element.keyword)
            if allowed is None or element.value in allowed:
                kept.add(element)
        except Exception:  # a value that cannot be read is not copied either
            continue
    return kept


def _mended(element: "DataElement") -> "DataElement":
    """Return an element with a value that DICOM allows, where it is plain what was meant."""
    from pydicom import DataElement
    from pydicom.valuerep import DSfloat

    if element.VR == "AS":
        return DataElement(element.tag, "AS", _age(str(element.value or "")))
    longest = max((len(str(one)) for one in _values(element)), default=0)
    if element.VR == "DS" and longest > _LONGEST_NUMBER:  # many programs write more digits
        values = [DSfloat(float(one), auto_format=True) for one in _values(element)]
        return DataElement(element.tag, "DS", values[0] if len(values) == 1 else values)
    return element


def _values(element: "DataElement") -> list[Any]:
    if element.VM == 0:
        return []
    return list(element.value) if element.VM > 1 else [element.value]


def _age(text: str) -> str:
    """Return an age as DICOM writes it: ``42`` is ``042Y``."""
    number, unit = text.strip(), "Y"
    if number[-1:] in "DWMY" and number:
        number, unit = number[:-1], text.strip()[-1]
    if not number.isdecimal() or int(number) > 999:
        return ""
    return f"{int(number):03d}{unit}"


_ENUMERATED = {"PatientSex": ("M", "F", "O"), "Laterality": ("R", "L")}
