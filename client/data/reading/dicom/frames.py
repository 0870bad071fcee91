"""One slice: its pixels, where it lies, and what its file says of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.dicom import kinds
from wardround.client.data.reading.image import UnreadableError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_RIGHT_ANGLE = 1e-3
_REGION_IN_CENTIMETRES = 3


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of one of its frames: of the frame, of all frames, of itself."""

    groups: tuple[Any, ...]
    dataset: Any

    def get(self, sequence: str, name: str) -> Any:
        """Return an element of a functional group, or that of a classic file; None if absent."""
        for group in self.groups:
            item = first(group.get(sequence)) if sequence else None
            if item is not None and item.get(name) is not None:
                return item.get(name)
        return kinds.element(self.dataset, name)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a frame lies (LPS millimetres), as far as the file says.

    Attributes:
        position: Of the centre of the first pixel.
        axes: ``(3, 3)``: unit vectors along a row, along a column, and along the normal, which
            slices follow each other along.
        spacing: Millimetres from row to row, and from column to column.
    """

    position: NDArray[np.float64] | None
    axes: NDArray[np.float64] | None
    spacing: tuple[float, float] | None

    @property
    def normal(self) -> NDArray[np.float64] | None:
        """The third axis."""
        return None if self.axes is None else np.asarray(self.axes[2])


def slice_affine(place: Place, gap: float | None) -> NDArray[np.float64] | None:
    """Return the matrix from (row, column, 0) of a slice to RAS millimetres; None if not said."""
    if place.spacing is None or place.axes is None or place.position is None:
        return None
    affine = np.eye(4)
    along_row, along_column, normal = place.axes
    affine[:3, 0] = along_column * place.spacing[0]
    affine[:3, 1] = along_row * place.spacing[1]
    affine[:3, 2] = normal * (gap or 1.0)
    affine[:3, 3] = place.position
    return np.asarray(LPS_TO_RAS @ affine)


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice.

    Attributes:
        pixels: ``(rows, columns)``, or ``(rows, columns, 3)`` of colour.
    """

    pixels: NDArray[Any]
    place: Place
    header: Header


def headers_of(dataset: Any, count: int) -> Iterator[Header]:
    """Yield the header of each frame.

    Raises:
        UnreadableError: The file describes another number of frames than it holds.
    """
    shared = first(kinds.element(dataset, "SharedFunctionalGroupsSequence"))
    common = () if shared is None else (shared,)
    own = kinds.element(dataset, "PerFrameFunctionalGroupsSequence")
    if own and len(own) != count:
        msg = (
            f"the file describes {len(own)} frames and holds {count}: it was cut or written wrong; "
            "export it again."
        )
        raise UnreadableError(msg)
    for number in range(count):
        yield Header((own[number], *common) if own else common, dataset)


def place_of(header: Header, is_alone: bool) -> Place:
    """Return where a frame lies.

    Args:
        header: Of the frame.
        is_alone: Whether it is the only one of its file: a position of many is that of the first.
    """
    position = header.get("PlanePositionSequence", "ImagePositionPatient")
    directions = header.get("PlaneOrientationSequence", "ImageOrientationPatient")
    if not is_alone and not any("PlanePositionSequence" in group for group in header.groups):
        position = None
    return Place(
        None if position is None or len(position) != 3 else _vector(position),
        None if directions is None or len(directions) != 6 else _axes(tuple(directions)),
        _spacing(header),
    )


def gap_of(header: Header) -> float | None:
    """Return the millimetres to the next frame, or else the thickness; None if not said."""
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        value = header.get("PixelMeasuresSequence", name)
        if value not in (None, "") and float(value):
            return abs(float(value))
    return None


def frame_of_reference(dataset: Any) -> str:
    """Return the UID of the coordinate system, which stands in no message; "" if unknown."""
    uid = dataset.get("FrameOfReferenceUID")
    if uid:
        return str(uid)
    item = first(dataset.get("ReferencedFrameOfReferenceSequence"))
    return "" if item is None else str(item.get("FrameOfReferenceUID") or "")


def first(sequence: Any) -> Any:
    """Return the first item of a sequence; None where there is none."""
    return sequence[0] if sequence else None


def _spacing(header: Header) -> tuple[float, float] | None:
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        values = header.get("PixelMeasuresSequence", name)
        if values is not None and not isinstance(values, float) and len(values) == 2:
            rows, columns = (float(value) for value in values)
            if not (0 < rows < np.inf and 0 < columns < np.inf):
                msg = "its header gives no positive pixel spacing: export the series again."
                raise UnreadableError(msg)
            return rows, columns
    regions = list(kinds.element(header.dataset, "SequenceOfUltrasoundRegions") or [])
    if len(regions) == 1:
        region = regions[0]
        units = {region.get(f"PhysicalUnits{axis}Direction") for axis in "XY"}
        if units == {_REGION_IN_CENTIMETRES}:
            return 10 * abs(float(region.PhysicalDeltaY)), 10 * abs(float(region.PhysicalDeltaX))
    return None


@lru_cache(maxsize=64)  # the slices of a series have the same
def _axes(values: tuple[Any, ...]) -> NDArray[np.float64]:
    pair = _vector(values).reshape(2, 3)
    lengths = np.linalg.norm(pair, axis=1)
    if not np.allclose(lengths, 1, atol=0.01) or abs(pair[0] @ pair[1]) > _RIGHT_ANGLE:
        msg = (
            "its ImageOrientationPatient is no pair of directions at a right angle: export the "
            "series again."
        )
        raise UnreadableError(msg)
    pair = pair / lengths[:, np.newaxis]
    return np.stack([*pair, np.cross(pair[0], pair[1])])


def _vector(values: Any) -> NDArray[np.float64]:
    vector = np.array([float(value) for value in values])
    if not np.isfinite(vector).all():
        msg = "a position or direction in its header is no number: export the series again."
        raise UnreadableError(msg)
    return vector


def is_enhanced(dataset: Any) -> bool:
    """Whether its frames say each where they lie."""
    groups = first(dataset.get("PerFrameFunctionalGroupsSequence"))
    return groups is not None and "PlanePositionSequence" in groups


def check_frames(dataset: Any, dimensions: int, count: int) -> None:
    """Refuse files whose frames are no slices of a volume.

    Raises:
        UnreadableError: They are a film, tiles of a slide, or do not say how they lie.
    """
    if count == 1:
        return
    name = kinds.in_words(dataset)
    if kinds.is_slide(dataset):
        msg = f"it is a slide of {count} tiles ({name}): save it as one picture."
        raise UnreadableError(msg)
    if dimensions == 2 or is_enhanced(dataset):
        return
    if kinds.is_film(dataset):
        msg = (
            f"its {count} frames follow each other in time, or by another measure than place, and "
            f"are no volume ({name}): use one frame in a 2D study, as in FILE#frame=middle."
        )
        raise UnreadableError(msg)
    if not dataset.get("SpacingBetweenSlices"):
        msg = (
            f"its {count} frames do not say where they lie, nor how far from each other "
            f"({name}): use one frame in a 2D study, as in FILE#frame=0, or store it as NIfTI."
        )
        raise UnreadableError(msg)
