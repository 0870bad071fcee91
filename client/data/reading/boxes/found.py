"""Boxes as they are written somewhere: a name of a class and two corners each, of any format."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.image import UnreadableError

Corners = NDArray[np.float64]

MOST_BOXES = 1000  # of an image: more is a mask of noise, or a table of all images
_FARTHEST = 1e6  # voxels: no image is as large


@dataclass(frozen=True, slots=True, eq=False)
class FoundBoxes:
    """Boxes of one image as a file says them; they may be unusable.

    Attributes:
        names: Of their classes, as they are written.
        corners: ``(N, 2 dims)``: lo of each axis, then hi of each, in voxels of the image as it
            was read, in the order of its axes; hi is exclusive.
        size: Of the image's axes, as the file says it; None where it does not.
        passed_over: How many are no thing by themselves: crowds of COCO.
    """

    names: tuple[str, ...]
    corners: Corners
    size: tuple[int, ...] | None = None
    passed_over: int = 0


def boxes_of(
    named: Sequence[tuple[str, Sequence[float]]],
    dimensions: int,
    size: tuple[int, ...] | None = None,
    passed_over: int = 0,
) -> FoundBoxes:
    """Return boxes that were written as x, y (and z) of the first corner, then of the last.

    In a picture x runs along its columns and y along its rows, so that its axes are (y, x). The
    axes of a volume are (x, y, z) already.

    Args:
        named: A name, and ``2 * dimensions`` numbers, a box.
        dimensions: 2 or 3.
        size: ``(x, y)`` of the image as the file says it.
        passed_over: As in :class:`FoundBoxes`.

    Raises:
        UnreadableError: They are too many, or a number is none.
    """
    if len(named) > MOST_BOXES:
        msg = (
            f"it holds {len(named)} boxes for one image, and at most {MOST_BOXES} can be used: cut "
            "the image into tiles."
        )
        raise UnreadableError(msg)
    corners = np.array([numbers for _, numbers in named], dtype=np.float64)
    corners = corners.reshape(len(named), 2 * dimensions)
    if not np.isfinite(corners).all() or (np.abs(corners) > _FARTHEST).any():
        msg = f"a corner of a box is no number up to {_FARTHEST:g}: mend it."
        raise UnreadableError(msg)
    if dimensions == 2:
        corners, size = corners[:, [1, 0, 3, 2]], None if size is None else size[::-1]
    return FoundBoxes(tuple(name for name, _ in named), corners, size, passed_over)


def number_of(text: str | None) -> float:
    """Return a finite number; raises ValueError for any other text."""
    if text is None or "_" in text:
        msg = "not a number"
        raise ValueError(msg)
    number = float(text)
    if not math.isfinite(number):
        msg = "not finite"
        raise ValueError(msg)
    return number


def is_of_image(written: str, image: Path) -> bool:
    """Return whether a file's name, perhaps with folders before it, is that of an image."""
    parts = [
        part for part in written.strip().replace("\\", "/").split("/") if part not in ("", ".")
    ]
    return bool(parts) and tuple(parts) == image.parts[-len(parts) :]


def require_flat(dimensions: int, what: str) -> None:
    """Refuse a format that knows only pictures for a volume.

    Raises:
        UnreadableError: There are three dimensions.
    """
    if dimensions != 2:
        msg = (
            f"{what} knows boxes of pictures only, and the study is of volumes: write a CSV table "
            "with class, x0, y0, z0, x1, y1, z1, or name a mask."
        )
        raise UnreadableError(msg)


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Return what a file holds.

    Raises:
        UnreadableError: It is too large.
    """
    with path.open("rb") as stream:
        content = stream.read(most_bytes + 1)
    if len(content) > most_bytes:
        msg = f"it is larger than {most_bytes / 1e6:.0f} MB: give each image a file of its own."
        raise UnreadableError(msg)
    return content
