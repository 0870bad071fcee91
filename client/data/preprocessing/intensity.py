"""Intensity presets: what makes images of one modality comparable across scanners.

Each preset is a function of a block ``(N, planes, *spatial)`` float32 that treats every image by
itself, so nothing of one patient enters another's image.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wardround.common.study.sections.data import DataSection, Intensity

Block = NDArray[np.float32]
Normalise = Callable[[Block, bool, DataSection], Block]

SOFT_TISSUE = (40.0, 400.0)  # centre and width of the window, in Hounsfield units
_TAIL_PERCENT = 0.5  # left out on either side, where markers and metal lie
_SMALLEST_DEVIATION = 1e-6  # a constant image becomes zeros, not infinities


@dataclass(frozen=True, slots=True)
class IntensityPreset:
    """A normalisation and the value of what lies outside the image.

    Attributes:
        normalise: Takes the block, whether its files held bytes, and the data contract.
        background: Fills what is padded; None takes the darkest value of each image.
    """

    normalise: Normalise
    background: float | None = None


def _per_image(block: Block) -> tuple[int, ...]:
    return tuple(range(1, block.ndim))


def _per_plane(block: Block) -> tuple[int, ...]:
    return tuple(range(2, block.ndim))


def _standardised(block: Block, axes: tuple[int, ...]) -> Block:
    mean = block.mean(axis=axes, keepdims=True)
    deviation = block.std(axis=axes, keepdims=True)
    scores: Block = (block - mean) / np.maximum(deviation, np.float32(_SMALLEST_DEVIATION))
    return scores


def _percentiles(block: Block, *percents: float) -> list[Block]:
    flat = block.reshape(len(block), -1)
    values = np.percentile(flat, percents, axis=1).astype(np.float32)
    return [row.reshape(-1, *(1,) * (block.ndim - 1)) for row in values]


def _rescaled(block: Block) -> Block:
    """Return the block with the 0.5th and 99.5th percentile of each image at 0 and 1, clipped."""
    low, high = _percentiles(block, _TAIL_PERCENT, 100 - _TAIL_PERCENT)
    scaled: Block = (block - low) / np.maximum(high - low, _SMALLEST_DEVIATION)
    return np.clip(scaled, 0, 1)


def as_stored(block: Block, eight_bit: bool, data: DataSection) -> Block:
    """Return bytes as 0 to 1, anything else unchanged."""
    return block / np.float32(255) if eight_bit else block


def xray(block: Block, eight_bit: bool, data: DataSection) -> Block:
    """Clip the tails of the histogram, then give each image mean 0 and deviation 1."""
    return _standardised(_rescaled(block), _per_image(block))


def ct(block: Block, eight_bit: bool, data: DataSection) -> Block:
    """Map a window of Hounsfield units to -1 .. 1; ``data.window`` is its centre and width.

    With ``data.scaling`` what lies in the window is standardised by that mean and deviation, as
    nnU-Net does (Isensee et al. 2021).
    """
    centre, width = data.window or SOFT_TISSUE
    if data.scaling is not None:
        mean, deviation = data.scaling
        clipped = np.clip(block, np.float32(centre - width / 2), np.float32(centre + width / 2))
        return (clipped - np.float32(mean)) / np.float32(deviation)
    windowed: Block = (block - np.float32(centre)) / np.float32(width / 2)
    return np.clip(windowed, -1, 1)


def mr(block: Block, eight_bit: bool, data: DataSection) -> Block:
    """Z-score each plane over its non-zero voxels, clipped at their 0.5th and 99.5th percentile.

    MR has no unit, and bright vessels or a coil's edge would stretch the scale: hence the
    percentiles. Zero is the air around a head or what skull-stripping removed; it stays zero.
    """
    result = np.zeros_like(block)
    for source, target in zip(block, result, strict=True):
        for plane, out in zip(source, target, strict=True):
            tissue = plane != 0
            values = plane[tissue]
            if values.size == 0:
                continue
            low, high = np.percentile(values, (_TAIL_PERCENT, 100 - _TAIL_PERCENT))
            values = np.clip(values, low, high)
            out[tissue] = (values - values.mean()) / max(values.std(), _SMALLEST_DEVIATION)
    return result


def dermoscopy(block: Block, eight_bit: bool, data: DataSection) -> Block:
    """Grey-world colour constancy, then -1 .. 1.

    The mean colour of the scene is taken to be grey (Buchsbaum 1980, J. Franklin Inst. 310:1), so
    each plane is scaled by ``mean over planes / mean of plane``; this takes out the lamp's tint.
    White is 255 for bytes, and otherwise the 99.5th percentile of the image.
    """
    means = block.mean(axis=_per_plane(block), keepdims=True)
    grey = means.mean(axis=1, keepdims=True)
    balanced = block * (grey / np.maximum(means, _SMALLEST_DEVIATION))
    white = np.float32(255) if eight_bit else _percentiles(balanced, 100 - _TAIL_PERCENT)[0]
    scaled: Block = np.clip(balanced / np.maximum(white, _SMALLEST_DEVIATION), 0, 1)
    return scaled * 2 - 1


def ultrasound(block: Block, eight_bit: bool, data: DataSection) -> Block:
    """Median of 3, logarithm, then z-score.

    Speckle multiplies, so the logarithm makes it additive; the median takes out its grains. The
    logarithm is the gentle ``log(1 + 10 x)`` over the image's own range, for display has mostly
    taken one already.
    """
    from scipy.ndimage import median_filter

    smooth = median_filter(block, size=(1, 1, *(3,) * (block.ndim - 2)))
    return _standardised(np.log1p(10 * _rescaled(smooth)), _per_image(block))


def histology(block: Block, eight_bit: bool, data: DataSection) -> Block:
    """Optical density of each plane, then z-score of each plane.

    Stain adds up in optical density ``-log10((I + 1) / (I_0 + 1))`` (Beer-Lambert law; Ruifrok and
    Johnston 2001, Anal. Quant. Cytol. Histol. 23:291); the z-score takes out its strength. The
    light ``I_0`` is 255 for bytes, and otherwise the brightest value of the image.
    """
    brightest = block.max(axis=_per_image(block), keepdims=True)
    light = np.full_like(brightest, 255) if eight_bit else np.maximum(brightest, 1e-6)
    intensity = np.clip(block, 0, None) * (np.float32(255) / light)
    density = -np.log10((intensity + np.float32(1)) / np.float32(256))
    return _standardised(density, _per_plane(block))


def background_of(data: DataSection) -> float | None:
    """Return what fills where an image is padded; None takes the darkest value of each image."""
    if data.intensity == "ct" and data.scaling is not None and data.window is not None:
        (centre, width), (mean, deviation) = data.window, data.scaling
        return (centre - width / 2 - mean) / deviation
    return INTENSITIES[data.intensity].background


INTENSITIES: dict[Intensity, IntensityPreset] = {
    "none": IntensityPreset(as_stored),
    "xray": IntensityPreset(xray),
    "ct": IntensityPreset(ct, background=-1.0),
    "mr": IntensityPreset(mr, background=0.0),
    "dermoscopy": IntensityPreset(dermoscopy),
    "ultrasound": IntensityPreset(ultrasound),
    "histology": IntensityPreset(histology),
}
