"""Noise. Every function takes an image whose own grey range is 0 to 1, and may leave that range.

What is drawn does not depend on the amount, so a larger amount is the same noise, stronger.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Array = NDArray[np.float32]


def gaussian_noise(image: Array, amount: float, generator: Generator) -> Array:
    """Add normal noise with a standard deviation of ``amount`` of the range."""
    drawn = generator.standard_normal(image.shape, dtype=np.float32)
    return image + np.float32(amount) * drawn


def rician_noise(image: Array, amount: float, generator: Generator) -> Array:
    """Return the magnitude after normal noise on both parts of the signal.

    Gudbjartsson and Patz 1995 (Magn. Reson. Med. 34:910).
    """
    first, second = (generator.standard_normal(image.shape, dtype=np.float32) for _ in range(2))
    noisy: Array = np.hypot(image + np.float32(amount) * first, np.float32(amount) * second)
    return noisy


def shot_noise(image: Array, amount: float, generator: Generator) -> Array:
    """Count photons, ``1 / amount**2`` of them where the image is white: a low dose, a dark room.

    The count is taken as normal with its mean as variance, which from some ten photons on is what
    Poisson's law comes to.
    """
    drawn = generator.standard_normal(image.shape, dtype=np.float32)
    return image + np.float32(amount) * np.sqrt(np.clip(image, 0, None)) * drawn


def speckle_noise(image: Array, amount: float, generator: Generator) -> Array:
    """Multiply by ``1 + n``, with n normal of standard deviation ``amount``."""
    drawn = generator.standard_normal(image.shape, dtype=np.float32)
    return image * (1 + np.float32(amount) * drawn)


def impulse_noise(image: Array, amount: float, generator: Generator) -> Array:
    """Turn a share of the values black or white, half of them each."""
    hit = generator.random(image.shape, dtype=np.float32) < amount
    white = generator.random(image.shape, dtype=np.float32) < 0.5
    return np.where(hit, white.astype(np.float32), image)
