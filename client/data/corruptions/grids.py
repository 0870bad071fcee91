"""A coarser grid, a lossy file, and what goes wrong while an MR scanner reads its lines.

The size of an image never changes: a mask still lies where it lay.
"""

import io
import math

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from wardround.client.data.corruptions.blur import side_of

Array = NDArray[np.float32]

_CENTRE = 0.04  # share of the lines on each side of k-space's centre that every artefact spares


def pixelate(image: Array, amount: float, generator: Generator) -> Array:
    """Replace blocks by their mean, in the first two spatial axes.

    A block is a pixel and ``amount`` of the image's side wide: a large photograph that a network
    sees small loses as much as a small one.
    """
    width = 1 + amount * side_of(image)
    for axis in (1, 2):
        image = _applied(image, _blocks(image.shape[axis], width, smooth=False), axis)
    return image


def low_resolution(image: Array, amount: float, generator: Generator) -> Array:
    """Sample ``amount`` times coarser and interpolate back: a volume's slices, a picture's rows."""
    axis = image.ndim - 1 if image.ndim == 4 else 1
    return _applied(image, _blocks(image.shape[axis], amount, smooth=True), axis)


def jpeg(image: Array, amount: float, generator: Generator) -> Array:
    """Store as JPEG of quality ``100 - amount`` and read again, a volume slice by slice."""
    if image.ndim == 4:
        slices = [jpeg(image[..., k], amount, generator) for k in range(image.shape[-1])]
        return np.stack(slices, axis=-1)
    levels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    stored = _stored(np.moveaxis(levels, 0, -1), round(100 - amount))
    beyond = image - np.clip(image, 0, 1)
    return np.moveaxis(stored, -1, 0).astype(np.float32) / np.float32(255) + beyond


def ghosting(image: Array, amount: float, generator: Generator) -> Array:
    """Weaken every n-th line of k-space by ``amount``: copies of the body, shifted along an axis.

    A pulse or breath does that while an MR scanner reads its lines.
    """
    axis = int(generator.integers(1, 3))
    every = int(generator.integers(2, 6))
    lines = image.shape[axis]
    kept = np.ones(lines)
    kept[np.arange(lines) % every == every // 2] -= amount
    spectrum = np.fft.fft(image, axis=axis) * _along(_sparing(kept, lines), axis, image.ndim)
    return _magnitude(np.fft.ifft(spectrum, axis=axis), image)


def motion(image: Array, amount: float, generator: Generator) -> Array:
    """Read a third of k-space's lines while the patient lies ``amount`` of the side elsewhere.

    After Shaw et al. 2019 (MIDL), with shifts only; the centre is read before the patient moves.
    """
    axes = (1, 2)
    shift = amount * side_of(image)
    angle, phase_axis = generator.uniform(0, 2 * math.pi), int(generator.integers(1, 3))
    lines = image.shape[phase_axis]
    begin = int(generator.integers(0, lines))
    moved = np.zeros(lines)
    moved[(begin + np.arange(lines // 3)) % lines] = 1
    moved = 1 - _sparing(1 - moved, lines)
    rows, columns = (
        _along(np.fft.fftfreq(image.shape[axis]).astype(np.float64), axis, image.ndim)
        for axis in axes
    )
    ramp = shift * (math.sin(angle) * rows + math.cos(angle) * columns)
    turn = np.exp(-2j * math.pi * ramp * _along(moved, phase_axis, image.ndim))
    return _magnitude(np.fft.ifft2(np.fft.fft2(image, axes=axes) * turn, axes=axes), image)


def _sparing(weights: NDArray[np.float64], lines: int) -> NDArray[np.float64]:
    """Return weights of k-space's lines that are 1 at its centre, which holds the mean grey."""
    return np.where(np.abs(np.fft.fftfreq(lines)) <= _CENTRE / 2, 1.0, weights)


def _along(values: NDArray[np.float64], axis: int, dimensions: int) -> NDArray[np.float64]:
    shape = [1] * dimensions
    shape[axis] = len(values)
    return values.reshape(shape)


def _magnitude(signal: NDArray[np.complexfloating], image: Array) -> Array:
    """Return a signal as a scanner shows it: without a sign where the image had none."""
    shown = np.abs(signal) if image.min() >= 0 else signal.real
    return shown.astype(np.float32)


def _blocks(count: int, size: float, smooth: bool) -> Array:
    """Return the matrix ``(count, count)`` that averages blocks and fills the grid from them."""
    fewer = max(1, round(count / size))
    edges = np.linspace(0, count, fewer + 1)
    left, right = np.arange(count), np.arange(1, count + 1)
    overlap = np.clip(
        np.minimum(right[None], edges[1:, None]) - np.maximum(left[None], edges[:-1, None]), 0, 1
    )
    means = overlap / overlap.sum(axis=1, keepdims=True)  # (fewer, count)
    centres, places = (edges[:-1] + edges[1:]) / 2, left + 0.5
    if smooth:
        back = np.stack([np.interp(places, centres, row) for row in np.eye(fewer)], axis=1)
    else:
        back = np.eye(fewer)[np.clip(np.searchsorted(edges, places) - 1, 0, fewer - 1)]
    matrix: Array = (back @ means).astype(np.float32)
    return matrix


def _applied(image: Array, matrix: Array, axis: int) -> Array:
    return np.moveaxis(np.tensordot(matrix, image, axes=(1, axis)), 0, axis)


def _stored(levels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    from PIL import Image

    grey = levels.shape[-1] == 1
    file = io.BytesIO()
    Image.fromarray(levels[..., 0] if grey else levels).save(file, "JPEG", quality=quality)
    read = np.asarray(Image.open(file))
    return read[..., None] if grey else read
