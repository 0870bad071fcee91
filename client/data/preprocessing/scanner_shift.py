"""A simulated scanner: what makes one hospital's images look unlike another's.

Applied to the image as it was read, before intensities are normalised. Strength 0 changes nothing
and 1 is a difference as between two vendors' scanners. Contrast, blur and scaling are the scanner's
own and the same for all its images; bias field and noise also differ by image. Where an image
without negative values is exactly 0 it stays so: that is what skull stripping, a collimator or a
lens has cut away, and no scanner measured it.
"""

import hashlib
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from wardround.client.data.manifest.examination import Examination
from wardround.client.site.folder import Scanner, Site
from wardround.common.study.sections.simulation import Shift

Array = NDArray[np.float32]

_FIELD_ORDER = 2  # coil sensitivity is smooth: quadratic terms are enough


def scanner_of(examination: Examination, site: Site) -> Scanner:
    """Return the simulated scanner of an examination; a real hospital's changes nothing."""
    if examination.scanner:
        return site.settings.scanners[examination.scanner]
    return Scanner(shift=site.settings.shift, seed=site.settings.shift_seed)


def generator_of(examination: Examination, scanner: Scanner) -> Generator:
    """Return the generator of one examination under one scanner.

    It depends on the patient and the names of the files, not on the row or the folder, so that an
    examination looks the same in its site, in the pooled data, and on another machine.
    """
    names = [(place.path.name, place.array, place.index) for place in examination.held_images]
    digest = hashlib.sha256(repr((examination.patient, names)).encode()).digest()
    return np.random.default_rng((scanner.seed, int.from_bytes(digest[:8], "big")))


def shift_image(array: Array, shifts: Sequence[Shift], generator: Generator) -> Array:
    """Return the image as the simulated scanner would have taken it.

    Args:
        array: ``(planes, *spatial)`` float32; it is left as it is.
        shifts: Applied in this order.
        generator: Of this image; the same state gives the same image.
    """
    shifted = array
    for shift in shifts:
        if shift.strength > 0:
            shifted = SHIFTS[shift.kind](shifted, shift.strength, generator)
    if shifted is not array and array.min() >= 0:
        shifted = np.where(array == 0, np.float32(0), shifted)
    return shifted.astype(np.float32, copy=False)


def contrast(array: Array, strength: float, generator: Generator) -> Array:
    """Bend the grey curve: ``x ** exp(strength / 2)`` over the image's own range."""
    low, high = array.min(), array.max()
    if high == low:
        return array
    span = high - low
    bent: Array = ((array - low) / span) ** np.float32(np.exp(strength / 2)) * span + low
    return bent


def bias_field(array: Array, strength: float, generator: Generator) -> Array:
    """Multiply by ``exp(0.4 strength p)``, where p is a random quadratic with largest value 1."""
    axes = [np.linspace(-1, 1, size, dtype=np.float32) for size in array.shape[1:]]
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    field = np.zeros(array.shape[1:], dtype=np.float32)
    for powers in product(range(_FIELD_ORDER + 1), repeat=len(axes)):
        if 0 < sum(powers) <= _FIELD_ORDER:
            term = np.ones((1,) * len(axes), dtype=np.float32)
            for axis, power in zip(grid, powers, strict=True):
                term = term * axis**power
            field += np.float32(generator.uniform(-1, 1)) * term
    largest = np.abs(field).max()
    return array if largest == 0 else array * np.exp(np.float32(0.4 * strength / largest) * field)


def noise(array: Array, strength: float, generator: Generator) -> Array:
    """Add Gaussian noise with a tenth of the image's standard deviation, times strength.

    A volume without negative values gets the Rician noise of a magnitude MR image instead
    (Gudbjartsson and Patz 1995, Magn. Reson. Med. 34:910): ``sqrt((x + n_1)^2 + n_2^2)``.
    """
    deviation = np.float32(0.1 * strength) * array.std()
    first = deviation * generator.standard_normal(array.shape, dtype=np.float32)
    if array.ndim == 4 and array.min() >= 0:
        second = deviation * generator.standard_normal(array.shape, dtype=np.float32)
        rician: Array = np.hypot(array + first, second)
        return rician
    noisy: Array = array + first
    return noisy


def blur(array: Array, strength: float, generator: Generator) -> Array:
    """Smooth with a Gaussian whose sigma is ``strength`` pixels."""
    from scipy.ndimage import gaussian_filter

    smooth: Array = gaussian_filter(array, (0, *(strength,) * (array.ndim - 1)))
    return smooth


def scaling(array: Array, strength: float, generator: Generator) -> Array:
    """Multiply by ``1 + strength / 2`` and add ``strength / 5`` standard deviations."""
    offset = np.float32(0.2 * strength) * array.std()
    scaled: Array = array * np.float32(1 + strength / 2) + offset
    return scaled


SHIFTS: dict[str, Callable[[Array, float, Generator], Array]] = {
    "contrast": contrast,
    "bias-field": bias_field,
    "noise": noise,
    "blur": blur,
    "scaling": scaling,
}
