"""A slice of a mask as text, to a browser and back; and an image as the browser shows it."""

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.errors import InputError

Bytes = NDArray[np.uint8]
_RUNS = re.compile(r"\d{1,3}:\d{1,8}(,\d{1,3}:\d{1,8})*", re.ASCII)
_LONGEST = 900_000  # characters: a form takes a million bytes


def pack_labels(labels: Bytes) -> str:
    """Return ``(rows, columns)`` labels as runs along the rows: ``0:12,1:3,0:49``."""
    return ",".join(f"{label}:{count}" for label, count in _runs(labels.ravel()))


def unpack_labels(text: str, shape: tuple[int, int], classes: int) -> Bytes:
    """Return labels ``shape`` from their runs.

    Raises:
        InputError: They are not runs of this many labels of so many classes.
    """
    pairs = []
    if len(text) <= _LONGEST and _RUNS.fullmatch(text):
        pairs = [tuple(map(int, pair.split(":"))) for pair in text.split(",")]
    numbers = [label for label, _ in pairs]
    counts = [count for _, count in pairs]
    if not pairs or sum(counts) != shape[0] * shape[1] or max(numbers) >= classes:
        msg = "what was drawn does not fit the image: load the page again, and draw it anew."
        raise InputError(msg)
    return np.repeat(np.array(numbers, dtype=np.uint8), counts).reshape(shape)


def _runs(flat: Bytes) -> Iterator[tuple[int, int]]:
    ends = np.flatnonzero(np.diff(flat)) + 1
    start = 0
    for end in (*ends.tolist(), len(flat)):
        yield int(flat[start]), end - start
        start = end


def picture_address(grey: Bytes) -> str:
    """Return ``(rows, columns)`` or ``(rows, columns, 3)`` as a PNG in a data address."""
    import PIL.Image

    stream = io.BytesIO()
    PIL.Image.fromarray(grey).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


@dataclass(frozen=True)
class Slices:
    """A picture, or a volume slice by slice as a viewer shows it: left to right, front on top.

    Attributes:
        shape: Of the image, (rows, columns) or (x, y, z).
    """

    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many there are."""
        return self.shape[2] if len(self.shape) == 3 else 1

    def view(self, values: Bytes, at: int) -> Bytes:
        """Return a slice as (rows, columns)."""
        return values if len(self.shape) == 2 else np.ascontiguousarray(values[:, :, at].T[::-1])

    def put(self, values: Bytes, at: int, seen: Bytes) -> None:
        """Put a slice back that was seen."""
        if len(self.shape) == 2:
            values[:] = seen
        else:
            values[:, :, at] = seen[::-1].T
