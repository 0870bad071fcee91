"""What one image looks like in ten numbers: how bright, how spread, how noisy, how sharp.

They are taken from the image as it was read, before any preprocessing, so that a scanner whose
values have moved is seen. Of a volume noise and sharpness are those of a few slices, and the
percentiles those of every n-th voxel: a volume of 512 x 512 x 400 takes well below a second.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.reading.image import Image

_Floats = NDArray[np.float64]
_MOST_VALUES = 50_000  # of a channel: percentiles of every n-th voxel of a volume are as good
_MOST_SLICES = 8
_PERCENTS = (1.0, 5.0, 50.0, 95.0, 99.0, 99.9)
STATISTICS: Mapping[str, str] = {
    "mean": "mean of all pixels",
    "spread": "standard deviation of all pixels",
    "darkest 1 %": "1st percentile",
    "median": "50th percentile",
    "brightest 1 %": "99th percentile",
    "peak": "99.9th percentile",
    "noise": "standard deviation of the noise (Immerkaer 1996)",
    "sharpness": "mean absolute Laplacian over the spread",
    "balance": "where the median lies between the 5th and the 95th percentile",
    "red": "share of red in a coloured image",
    "blue": "share of blue in a coloured image",
}


def measure_images(channels: Sequence[Image], names: Sequence[str]) -> dict[str, float]:
    """Return the statistics of an examination.

    Args:
        channels: Its images as they were read, one a channel; an absent one has none.
        names: Of the channels; one channel alone is not named.

    Returns:
        By the name of a statistic, with the channel before it where there are several. What cannot
        be told of an image, such as the noise of one that is two pixels wide, is left out.
    """
    found: dict[str, float] = {}
    for name, image in zip(names, channels, strict=True):
        if image.is_absent:
            continue
        before = f"{name}: " if len(names) > 1 else ""
        found.update({f"{before}{key}": value for key, value in measure(image.array).items()})
    return found


def measure(array: NDArray[np.float32]) -> dict[str, float]:
    """Return the statistics of an image ``(planes, *spatial)``, those that can be told of it."""
    grey = array[0] if len(array) == 1 else array.mean(axis=0)
    flat = grey.reshape(-1)
    # An odd step: an even one could hit the same places of every row.
    some = flat[:: (flat.size // _MOST_VALUES) | 1] if flat.size > _MOST_VALUES else flat
    values = some.astype(np.float64)
    p1, p5, p50, p95, p99, peak = np.percentile(values, _PERCENTS).tolist()
    spread = float(values.std())
    noise, edges = _of_slices(grey)
    found = {
        "mean": float(values.mean()),
        "spread": spread,
        "darkest 1 %": p1,
        "median": p50,
        "brightest 1 %": p99,
        "peak": peak,
        "noise": noise,
        "sharpness": edges / spread if spread > 0 else math.nan,
        "balance": (p50 - p5) / (p95 - p5) if p95 > p5 else math.nan,
        **_colours(array),
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _colours(array: NDArray[np.float32]) -> dict[str, float]:
    if len(array) != 3:
        return {}
    red, green, blue = (float(plane.mean(dtype=np.float64)) for plane in array)
    total = red + green + blue
    return {"red": red / total, "blue": blue / total} if total > 0 else {}


def _of_slices(grey: NDArray[np.float32]) -> tuple[float, float]:
    """Return the noise and the mean absolute Laplacian; NaN where there are too few pixels."""
    planes = grey[np.newaxis] if grey.ndim == 2 else np.moveaxis(grey, -1, 0)
    if planes.ndim != 3 or min(planes.shape[1:]) < 3:
        return math.nan, math.nan
    if len(planes) > _MOST_SLICES:
        # The middle half: what lies at the ends of a volume is air.
        chosen = np.linspace(len(planes) // 4, 3 * len(planes) // 4, _MOST_SLICES).astype(int)
        planes = planes[chosen]
    some = planes.astype(np.float64)
    sides = some[:, :-2, 1:-1] + some[:, 2:, 1:-1] + some[:, 1:-1, :-2] + some[:, 1:-1, 2:]
    edges = float(np.abs(sides - 4 * some[:, 1:-1, 1:-1]).mean())
    return _noise(some), edges


def _noise(planes: _Floats) -> float:
    """Return Immerkaer's estimate: the difference of two Laplacians, blind to edges."""
    rows = planes[:, :-2] - 2 * planes[:, 1:-1] + planes[:, 2:]
    both = rows[:, :, :-2] - 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    return float(math.sqrt(math.pi / 2) * np.abs(both).mean() / 6)
