"""What images look like before any preprocessing: of training images kept, of new ones compared."""

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.preprocessing.geometry import axis_codes
from wardround.client.data.reading.image import Image
from wardround.common.models.contract import Seen, SeenIntensities, Spread

_PERCENTS = (1, 50, 99)
_MOST_VALUES = 50_000  # of a channel: percentiles of every n-th voxel of a volume are as good


def look_at(channels: Sequence[Image]) -> Seen:
    """Return what one examination looks like, as a contract keeps it.

    Args:
        channels: Its images as they were read, each ``(planes, *spatial)``.
    """
    first = channels[0]
    spacing = first.spacing
    codes = None if first.affine is None else axis_codes(first.affine)
    return Seen(
        images=1,
        channels=tuple(_intensities(image.array) for image in channels),
        size=_spreads(first.array.shape[1:]),
        spacing=None if spacing is None else _spreads(spacing),
        orientations=() if codes is None or first.array.ndim < 4 else (codes,),
        eight_bit=first.eight_bit,
        coloured=_is_coloured(first.array),
    )


def _is_coloured(array: NDArray[np.float32]) -> bool | None:
    return None if len(array) == 1 else bool((array[1:] != array[:1]).any())


def _intensities(array: NDArray[np.float32]) -> SeenIntensities:
    flat = array.reshape(array.shape[0], -1)
    step = max(1, prod(array.shape) // _MOST_VALUES)
    # A step that shares no factor with the rows would be needed for a fair draw of a grid; an odd
    # one is near enough for three percentiles.
    dark, middle, bright = np.percentile(flat[:, :: step | 1], _PERCENTS).tolist()
    one, two, three = (Spread(low=value, high=value) for value in (dark, middle, bright))
    return SeenIntensities(dark=one, middle=two, bright=three)


def _spreads(values: Sequence[float]) -> tuple[Spread, ...]:
    return tuple(Spread(low=float(value), high=float(value)) for value in values)
