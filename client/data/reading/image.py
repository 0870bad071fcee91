"""What a reader returns, and how it says that a file cannot be used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import DataError

MOST_VOXELS = 2**31  # 1024 x 1024 x 2048: more is a header that lies, or no machine's memory


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
        affine: 4x4 matrix from voxel to RAS millimetres, of a slice from (row, column, 0); None
            where the file does not say.
        eight_bit: Whether the file held bytes, so that 255 is white.
        is_unplaced: Whether the format can say how an image lies, and this file does not.
        is_turned: Whether a slice's rows and columns run otherwise than in its file, (x, y).
        rounding: Radians by which the affine's directions may be off, as its header stores them.
        notes: What was done on the way and is worth a line in the site's log.
        frame: The coordinate system that the affine leads to, as DICOM names it; "" if unknown.
            It stands in no message.
        is_matched: Whether the labels of a mask were found by name, so that they are the study's.
        is_absent: Whether it only holds the place of a channel that the examination lacks.
    """

    array: NDArray[Any]
    spacing: tuple[float, ...] | None = None
    affine: NDArray[Any] | None = None
    eight_bit: bool = False
    is_unplaced: bool = False
    is_turned: bool = False
    rounding: float = 0.0
    notes: tuple[str, ...] = ()
    frame: str = ""
    is_matched: bool = False
    is_absent: bool = False


def first_held(channels: Sequence[Image]) -> Image:
    """Return the first channel that an examination does not lack: the others lie on its grid."""
    return next(image for image in channels if not image.is_absent)


def fill_absent(channels: Sequence[Image | None]) -> tuple[Image, ...]:
    """Return the channels of an examination, with zeros on the grid of the first for None.

    Nobody sees these zeros: the network puts its own token in their place.

    Raises:
        UnreadableError: All are lacking.
    """
    first = next((image for image in channels if image is not None), None)
    if first is None:
        msg = "all of its images are missing: give one at least."
        raise UnreadableError(msg)
    absent = replace(first, array=np.zeros_like(first.array), notes=(), is_absent=True)
    return tuple(absent if image is None else image for image in channels)


@dataclass(frozen=True, slots=True)
class Stored:
    """What a file holds, before its axes are sorted.

    Attributes:
        values: Spatial axes first, then perhaps one of colour (3 or 4) or a single plane.
        spacing: As in :class:`Image`, perhaps with more axes than are used.
        affine: As in :class:`Image`.
        is_unplaced: As in :class:`Image`.
        is_turned: As in :class:`Image`.
        rounding: As in :class:`Image`.
        is_lossy: Whether the format changes values a little, as JPEG does.
        notes: As in :class:`Image`.
        frame: As in :class:`Image`.
        is_matched: As in :class:`Image`.
    """

    values: NDArray[Any]
    spacing: tuple[float, ...] | None = None
    affine: NDArray[Any] | None = None
    is_unplaced: bool = False
    is_turned: bool = False
    rounding: float = 0.0
    is_lossy: bool = False
    notes: tuple[str, ...] = ()
    frame: str = ""
    is_matched: bool = False


def turned(
    values: NDArray[Any],
    affine: NDArray[Any],
    axes: Sequence[int],
    flips: Sequence[bool],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return voxels in another order of their three axes, and the affine that they then have.

    Args:
        values: ``(x, y, z)``.
        affine: ``(4, 4)``, from voxels to millimetres.
        axes: For each new axis, which old one it is.
        flips: For each new axis, whether it runs the other way.
    """
    back = np.zeros((4, 4))
    back[3, 3] = 1.0
    for new, (old, flip) in enumerate(zip(axes, flips, strict=True)):
        back[old, new] = -1.0 if flip else 1.0
        back[old, 3] = values.shape[old] - 1 if flip else 0.0
    steps = tuple(slice(None, None, -1 if flip else None) for flip in flips)
    return values.transpose(axes)[steps], affine @ back


@dataclass(frozen=True, slots=True)
class MaskTarget:
    """What a mask is read for: some formats name what they outline, and where it lies.

    Attributes:
        classes: The study's, in order; the first is the background. None where it is only looked
            whether the file is whole: labels are then those of the file.
        image: The image that the mask is of, as it was read; None if unknown.
        words: Further names of classes, without capitals and doubled blanks.
    """

    classes: tuple[str, ...] = ()
    image: Image | None = None
    words: Mapping[str, str] = field(default_factory=dict)

    def named(self, text: str) -> str:
        """Return the class that a name stands for; the name itself where no word is known."""
        return self.words.get(" ".join(text.split()).casefold(), text)
