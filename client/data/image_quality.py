"""How good an image is as an image: sharpness, contrast and noise, from its pixels alone.

Of a volume the middle slice is looked at. The values order the images of one site; between sites
they differ with the scanner, which is what a subgroup by scanner is for.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Plane = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ImageQuality:
    """What one image looks like; NaN where it has fewer than three pixels a side.

    Attributes:
        sharpness: Mean absolute Laplacian over the standard deviation: how much of what is seen
            changes from pixel to pixel. Noise is sharp too.
        contrast: Standard deviation, in the file's own units.
        noise: Standard deviation of the noise, in the file's own units (Immerkaer, Computer Vision
            and Image Understanding 64, 1996).
    """

    sharpness: float
    contrast: float
    noise: float


def quality_of(array: NDArray[np.generic]) -> ImageQuality:
    """Return the quality of an image ``(planes, *spatial)`` as it was read."""
    plane = np.asarray(array, dtype=np.float64).mean(axis=0)
    if plane.ndim == 3:
        plane = plane[..., plane.shape[-1] // 2]
    if plane.ndim != 2 or min(plane.shape) < 3 or not np.isfinite(plane).all():
        return ImageQuality(math.nan, math.nan, math.nan)
    spread = float(plane.std())
    edges = float(np.abs(_laplacian(plane)).mean())
    return ImageQuality(edges / spread if spread > 0 else 0.0, spread, _noise(plane))


def _laplacian(plane: _Plane) -> _Plane:
    sides = plane[:-2, 1:-1] + plane[2:, 1:-1] + plane[1:-1, :-2] + plane[1:-1, 2:]
    return np.asarray(sides - 4 * plane[1:-1, 1:-1])


def _noise(plane: _Plane) -> float:
    """Return Immerkaer's estimate: the difference of two Laplacians, blind to edges."""
    rows = plane[:-2] - 2 * plane[1:-1] + plane[2:]
    both = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(math.sqrt(math.pi / 2) * np.abs(both).mean() / 6)
