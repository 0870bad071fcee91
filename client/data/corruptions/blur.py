"""Blur. Lengths are shares of the image's side, so that small and large images lose alike.

The weakest blur of the smallest image must still reach a neighbour: a part of a pixel is added.
"""

import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float32]

_LEAST_SIGMA, _LEAST_RADIUS = 0.25, 0.5  # pixels


def side_of(image: Array) -> float:
    """Return the geometric mean of an image's sides, in pixels or voxels.

    Args:
        image: ``(planes, *spatial)``.
    """
    sides = image.shape[1:]
    return float(math.prod(sides) ** (1 / len(sides)))


def gaussian_blur(image: Array, amount: float, generator: Generator) -> Array:
    """Smooth with a Gaussian whose sigma is ``amount`` of the side."""
    from scipy.ndimage import gaussian_filter

    sigma = _LEAST_SIGMA + amount * side_of(image)
    smooth: Array = gaussian_filter(image, (0, *(sigma,) * (image.ndim - 1)), truncate=3.0)
    return smooth


def defocus_blur(image: Array, amount: float, generator: Generator) -> Array:
    """Smooth with a disc whose radius is ``amount`` of the side: a lens out of focus."""
    radius = _LEAST_RADIUS + amount * side_of(image)
    reach = math.ceil(radius)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    # A pixel at the edge counts by how much of it lies inside: small discs grow smoothly.
    disc = np.clip(radius + 0.5 - np.hypot(rows, columns), 0, 1)
    return _convolved(image, disc)


def motion_blur(image: Array, amount: float, generator: Generator) -> Array:
    """Smooth along a line of ``amount`` of the side in a drawn direction: a hand that moved."""
    angle = generator.uniform(0, math.pi)
    half = amount * side_of(image) / 2
    reach = math.ceil(half) + 1
    line = np.zeros((2 * reach + 1, 2 * reach + 1))
    for place in np.linspace(-half, half, 8 * reach + 1):
        _put(line, reach + place * math.sin(angle), reach + place * math.cos(angle))
    return _convolved(image, line)


def _put(grid: NDArray[np.float64], row: float, column: float) -> None:
    """Add one to a grid, shared among the four pixels around a point."""
    top, left = math.floor(row), math.floor(column)
    for i, share_i in ((top, 1 - (row - top)), (top + 1, row - top)):
        for j, share_j in ((left, 1 - (column - left)), (left + 1, column - left)):
            if share_i * share_j:
                grid[i, j] += share_i * share_j


def _convolved(image: Array, kernel: NDArray[np.float64]) -> Array:
    """Return the image convolved in its first two spatial axes, its edge mirrored."""
    from scipy.signal import fftconvolve

    rows, columns = (size // 2 for size in kernel.shape)
    weights = (kernel / kernel.sum()).astype(np.float32)
    later = image.ndim - 3
    padding = [(0, 0), (rows, rows), (columns, columns), *[(0, 0)] * later]
    padded = np.pad(image, padding, mode="symmetric")
    shaped = weights.reshape(1, *weights.shape, *(1,) * later)
    smooth: Array = fftconvolve(padded, shaped, mode="valid", axes=(1, 2))
    return smooth.astype(np.float32, copy=False)
