"""What a reader returns, and how it says that a file cannot be used."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from wardround.common.errors import DataError


class UnreadableError(DataError):
    """A file cannot be used; its text names neither the file nor the patient.

    Whoever knows the row of the manifest adds it with :meth:`at`.
    """

    def at(self, row: int, column: str) -> DataError:
        """Return the refusal with its place in the manifest."""
        return DataError(f"row {row}, column {column}: {self}")


@dataclass(frozen=True, slots=True)
class Image:
    """One image, or one mask, with its geometry.

    Attributes:
        array: ``(planes, *spatial)``; float32 for an image, an integer type for a mask.
        spacing: Millimetres a voxel along each spatial axis; None where the file does not say.
        affine: 4x4 matrix from voxel to RAS millimetres; None where the file does not say.
        eight_bit: Whether the file held bytes, so that 255 is white.
        notes: What was done on the way and is worth a line in the site's log.
        frame: The coordinate system that the affine leads to, as DICOM names it; "" if unknown.
            It stands in no message.
    """

    array: NDArray[Any]
    spacing: tuple[float, ...] | None = None
    affine: NDArray[Any] | None = None
    eight_bit: bool = False
    notes: tuple[str, ...] = ()
    frame: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file holds, before its axes are sorted.

    Attributes:
        values: Spatial axes first, then perhaps one of colour (3 or 4) or a single plane.
        spacing: As in :class:`Image`, perhaps with more axes than are used.
        affine: As in :class:`Image`.
        notes: As in :class:`Image`.
        frame: As in :class:`Image`.
    """

    values: NDArray[Any]
    spacing: tuple[float, ...] | None = None
    affine: NDArray[Any] | None = None
    notes: tuple[str, ...] = ()
    frame: str = ""


@dataclass(frozen=True, slots=True)
class MaskTarget:
    """What a mask is read for: some formats name what they outline, and where it lies.

    Attributes:
        classes: The study's, in order; the first is the background. None where it is only looked
            whether the file is whole: labels are then those of the file.
        image: The image that the mask is of, as it will be compared with it; None if unknown.
    """

    classes: tuple[str, ...] = ()
    image: Image | None = None
