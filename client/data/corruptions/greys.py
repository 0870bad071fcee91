"""Greys that are brighter, darker, flatter, steeper or bent. The image's own range is 0 to 1."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float32]


def brightness(image: Array, amount: float, generator: Generator) -> Array:
    """Add ``amount`` of the range, which may be negative; what leaves the range is cut off."""
    return image + np.float32(amount)


def contrast(image: Array, amount: float, generator: Generator) -> Array:
    """Stretch the values around the image's mean by ``amount``; below 1 it gets flatter."""
    mean = np.float32(image.mean(dtype=np.float64))
    stretched: Array = mean + np.float32(amount) * (image - mean)
    return stretched


def gamma(image: Array, amount: float, generator: Generator) -> Array:
    """Raise what lies in the range to a power: above 1 it gets darker, below 1 brighter."""
    inside = (image > 0) & (image < 1)
    return np.power(image, np.float32(amount), where=inside, out=image.copy())


def bias_field(image: Array, amount: float, generator: Generator) -> Array:
    """Multiply by a smooth drawn field between ``exp(-amount)`` and ``exp(amount)``.

    A coil's sensitivity; the field is that of the simulated scanner.
    """
    from wardround.client.data.preprocessing.scanner_shift import bias_field as of_scanner

    return of_scanner(image, amount / 0.4, generator)
