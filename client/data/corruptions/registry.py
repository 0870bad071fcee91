"""Which corruptions there are, how strong each of five severities is, and which fit an image.

After Hendrycks and Dietterich 2019 (arXiv 1903.12261) and MedMNIST-C (Di Salvo et al. 2024,
arXiv 2406.17536): natural changes of an image, not chosen against a network.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from wardround.client.data.corruptions import blur, greys, grids, noise
from wardround.client.data.manifest.examination import Examination
from wardround.client.data.preprocessing.intensity import SOFT_TISSUE
from wardround.client.data.preprocessing.scanner_shift import generator_of
from wardround.client.data.reading.image import Image
from wardround.client.site.folder import Scanner
from wardround.common.errors import InputError, known_names
from wardround.common.study.sections.data import DataSection, Intensity

Array = NDArray[np.float32]
SEVERITIES = (1, 2, 3, 4, 5)
_WHITE = 255.0
_BRIGHT_PERCENT = 99.5


@dataclass(frozen=True, slots=True)
class Corruption:
    """A way in which an image gets worse.

    Attributes:
        change: Takes ``(planes, *spatial)`` whose own grey range is 0 to 1, an amount, a generator.
        amounts: One a severity, the weakest first.
    """

    change: Callable[[Array, float, Generator], Array]
    amounts: tuple[float, float, float, float, float]


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian-noise": Corruption(noise.gaussian_noise, (0.04, 0.08, 0.12, 0.18, 0.26)),
    "rician-noise": Corruption(noise.rician_noise, (0.03, 0.06, 0.1, 0.15, 0.2)),
    "shot-noise": Corruption(noise.shot_noise, (0.06, 0.1, 0.15, 0.2, 0.3)),
    "impulse-noise": Corruption(noise.impulse_noise, (0.01, 0.03, 0.06, 0.1, 0.17)),
    "speckle-noise": Corruption(noise.speckle_noise, (0.1, 0.15, 0.25, 0.35, 0.5)),
    "gaussian-blur": Corruption(blur.gaussian_blur, (0.01, 0.02, 0.03, 0.04, 0.06)),
    "defocus-blur": Corruption(blur.defocus_blur, (0.015, 0.025, 0.04, 0.06, 0.08)),
    "motion-blur": Corruption(blur.motion_blur, (0.04, 0.07, 0.1, 0.15, 0.2)),
    "brightness-up": Corruption(greys.brightness, (0.06, 0.12, 0.2, 0.3, 0.4)),
    "brightness-down": Corruption(greys.brightness, (-0.06, -0.12, -0.2, -0.3, -0.4)),
    "contrast-up": Corruption(greys.contrast, (1.2, 1.4, 1.7, 2.1, 2.6)),
    "contrast-down": Corruption(greys.contrast, (0.8, 0.65, 0.5, 0.35, 0.2)),
    "gamma-up": Corruption(greys.gamma, (1.2, 1.5, 1.8, 2.3, 3.0)),
    "gamma-down": Corruption(greys.gamma, (0.83, 0.67, 0.55, 0.43, 0.33)),
    "jpeg": Corruption(grids.jpeg, (50, 70, 80, 88, 93)),
    "pixelate": Corruption(grids.pixelate, (0.015, 0.03, 0.05, 0.08, 0.12)),
    "low-resolution": Corruption(grids.low_resolution, (1.5, 2, 3, 4, 6)),
    "bias-field": Corruption(greys.bias_field, (0.2, 0.4, 0.6, 0.9, 1.2)),
    "ghosting": Corruption(grids.ghosting, (0.15, 0.3, 0.45, 0.6, 0.8)),
    "motion": Corruption(grids.motion, (0.01, 0.02, 0.035, 0.05, 0.08)),
}

_NOISES = ("gaussian-noise", "shot-noise", "impulse-noise", "speckle-noise")
_LIGHT = ("brightness-up", "brightness-down", "contrast-up", "contrast-down")
_GAMMA = ("gamma-up", "gamma-down")
_PHOTO = (*_NOISES, "gaussian-blur", "defocus-blur", "motion-blur", *_LIGHT, "jpeg", "pixelate")
_XRAY = (*_NOISES, "gaussian-blur", *_LIGHT, *_GAMMA, "jpeg", "pixelate")
_ULTRASOUND = (
    *("speckle-noise", "gaussian-noise", "impulse-noise", "gaussian-blur", "motion-blur"),
    *(*_LIGHT, *_GAMMA, "low-resolution", "pixelate"),
)
_CT = (
    *("gaussian-noise", "shot-noise", "gaussian-blur", "motion-blur"),
    *(*_LIGHT, *_GAMMA, "low-resolution", "pixelate"),
)
_MR = (
    *("rician-noise", "gaussian-blur", "motion", "ghosting", "bias-field"),
    *(*_LIGHT, *_GAMMA, "low-resolution", "pixelate"),
)
_FITTING: dict[Intensity, tuple[str, ...]] = {
    "xray": _XRAY,
    "ct": _CT,
    "mr": _MR,
    "dermoscopy": _PHOTO,
    "histology": _PHOTO,
    "ultrasound": _ULTRASOUND,
}


def fitting_corruptions(data: DataSection) -> tuple[str, ...]:
    """Return the corruptions that happen to a study's kind of image, by ``data.intensity``.

    Where that is "none", pictures are taken for X-rays and volumes for MR.
    """
    return _FITTING.get(data.intensity, _XRAY if data.dimensions == 2 else _MR)


def check_corruptions(names: Sequence[str]) -> None:
    """Check that names are those of corruptions.

    Raises:
        InputError: One is not; lists the known ones.
    """
    for name in names:
        if name not in CORRUPTIONS:
            raise InputError(known_names("corruption", name, CORRUPTIONS))


def generator_for_case(examination: Examination, name: str, seed: int) -> Generator:
    """Return the generator of one corruption of one examination, the same for all severities."""
    digest = hashlib.sha256(f"{seed}\x1f{name}".encode()).digest()
    return generator_of(examination, Scanner(shift=(), seed=int.from_bytes(digest[:4], "big")))


def corrupted(
    image: Image, name: str, severity: int, generator: Generator, data: DataSection
) -> Image:
    """Return an image as it would have been taken worse, in its own grey values.

    The values stay within the image's range, those of a file of bytes whole numbers. Where an MR
    image is exactly 0 it stays so: skull stripping comes after the scanner.

    Args:
        image: As it was read.
        name: A key of :data:`CORRUPTIONS`.
        severity: 1 to 5; 0 changes nothing.
        generator: From :func:`generator_for_case`.
        data: The study's contract: what the range of a CT is.
    """
    array: Array = image.array
    if severity == 0:
        return image
    black, white = _range_of(image, data)
    if white <= black:
        return image
    span = np.float32(white - black)
    corruption = CORRUPTIONS[name]
    amount = corruption.amounts[severity - 1]
    changed = corruption.change((array - np.float32(black)) / span, amount, generator)
    values = changed.astype(np.float32, copy=False) * span + np.float32(black)
    least, most = (0.0, _WHITE) if image.eight_bit else (array.min(), array.max())
    values = np.clip(values, min(least, array.min()), max(most, array.max()))
    if image.eight_bit:
        values = np.rint(values)
    if data.intensity == "mr" and array.min() >= 0:
        values = np.where(array == 0, np.float32(0), values)
    return replace(image, array=values)


def _range_of(image: Image, data: DataSection) -> tuple[float, float]:
    """Return black and white of an image: of bytes 0 and 255, of a CT the ends of its window."""
    if image.eight_bit:
        return 0.0, _WHITE
    if data.intensity == "ct":
        centre, width = data.window or SOFT_TISSUE
        return centre - width / 2, centre + width / 2
    bright = float(np.percentile(image.array, _BRIGHT_PERCENT))
    return float(image.array.min()), bright
