"""What images look like before any preprocessing: of training images kept, of new ones compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.preprocessing.geometry import axis_codes
from wardround.client.data.reading.image import Image, first_held
from wardround.common.models.contract import Seen, SeenIntensities, Spread

_PERCENTS = np.array([1, 50, 99]) / 100
_MOST_VALUES = 50_000  # of a channel: percentiles of every n-th voxel of a volume are as good


@dataclass(frozen=True, slots=True)
class Looks:
    """What one examination looks like.

    Attributes:
        intensities: Of each channel the 1st percentile, the median and the 99th percentile; None
            of one that is absent.
        size: Voxels along each axis.
        spacing: Millimetres along each axis; None where the file does not say.
        orientation: Where the axes of a volume point to, e.g. "RAS"; None as for spacing.
        eight_bit: Whether its file held bytes.
        coloured: Whether its planes differ; None where it has one.
    """

    intensities: tuple[tuple[float, float, float] | None, ...]
    size: tuple[int, ...]
    spacing: tuple[float, ...] | None
    orientation: str | None
    eight_bit: bool
    coloured: bool | None

    def as_seen(self) -> Seen:
        """Return it as a contract keeps it."""
        return Seen(
            images=1,
            channels=tuple(None if one is None else _seen(one) for one in self.intensities),
            size=tuple(map(_spread, self.size)),
            spacing=None if self.spacing is None else tuple(map(_spread, self.spacing)),
            orientations=() if self.orientation is None else (self.orientation,),
            eight_bit=self.eight_bit,
            coloured=self.coloured,
        )


def look_at(channels: Sequence[Image]) -> Looks:
    """Return what one examination looks like.

    Args:
        channels: Its images as they were read, each ``(planes, *spatial)``.
    """
    first = first_held(channels)
    placed = first.affine is not None and first.array.ndim == 4
    return Looks(
        tuple(None if image.is_absent else _percentiles(image.array) for image in channels),
        first.array.shape[1:],
        first.spacing,
        axis_codes(first.affine) if placed and first.affine is not None else None,
        first.eight_bit,
        None if len(first.array) == 1 else bool((first.array[1:] != first.array[:1]).any()),
    )


def _seen(values: tuple[float, float, float]) -> SeenIntensities:
    dark, middle, bright = map(_spread, values)
    return SeenIntensities(dark=dark, middle=middle, bright=bright)


def _percentiles(array: NDArray[np.float32]) -> tuple[float, float, float]:
    flat = array.reshape(-1)
    # An odd step: an even one could hit the same places of every row.
    some = flat[:: max(1, flat.size // _MOST_VALUES) | 1] if flat.size > _MOST_VALUES else flat
    places = _places(some.size)
    dark, middle, bright = np.partition(some, places)[places].tolist()
    return dark, middle, bright


@lru_cache(maxsize=64)  # most images of a set have one size
def _places(count: int) -> NDArray[np.int64]:
    return np.rint(_PERCENTS * (count - 1)).astype(np.int64)


def _spread(value: float) -> Spread:
    return Spread(low=float(value), high=float(value))
