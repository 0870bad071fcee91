"""How much of an image's grey values an attacker may change, and what the network sees of it.

A radius is said in 255ths of the range of an image's own grey values: in levels of a picture of
bytes. The range of a CT is its window, for Hounsfield units outside of it are never seen; of any
other image it goes from the 0.5th to the 99.5th percentile, so that no marker stretches it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wardround.client.data.preprocessing.harmonisation import harmonised
from wardround.client.data.preprocessing.intensity import INTENSITIES, SOFT_TISSUE
from wardround.client.data.preprocessing.preprocessing import grey_channels
from wardround.client.data.reading.image import Image
from wardround.common.study.sections.data import DataSection

LEVELS = 255.0
_TAILS = (0.5, 99.5)


def grey_unit(block: NDArray[np.float32], eight_bit: bool, data: DataSection) -> float:
    """Return one 255th of the grey range of an image.

    Args:
        block: ``(1, planes, *spatial)`` of one channel, before the intensity preset.
        eight_bit: Whether its file held bytes.
    """
    if eight_bit:
        return 1.0
    if data.intensity == "ct":
        return (data.window or SOFT_TISSUE)[1] / LEVELS
    low, high = np.percentile(block, _TAILS)
    return float(high - low) / LEVELS


def grey_steps(channels: Sequence[Image], data: DataSection) -> NDArray[np.float32]:
    """Return how far one 255th of the grey range moves what the network sees, ``(C,)``.

    That is the slope of the intensity preset between its cut-off ends. The presets none, ct, xray,
    mr and dermoscopy are straight lines there, so the slope is exact for an image whose mean,
    deviation and percentiles stay as they are. Those of ultrasound and histology bend, as does a
    harmonisation: theirs is the slope of the straight line that fits best.

    Args:
        channels: Of one examination in their own grey values.
        data: The study's contract.
    """
    steps = []
    preset = INTENSITIES[data.intensity].normalise
    for place, (grey, image) in enumerate(
        zip(grey_channels(channels, data), channels, strict=True)
    ):
        own = data.of_channel(place)
        seen = preset(harmonised(grey, own), image.eight_bit, own)
        unit = grey_unit(grey, image.eight_bit, data)
        pairs = zip(grey[0], seen[0], strict=True)
        steps += [unit * _slope(before, after, data) for before, after in pairs]
    return np.array(steps, dtype=np.float32)


def _slope(grey: NDArray[np.float32], seen: NDArray[np.float32], data: DataSection) -> float:
    """Return the slope of the line from grey values to what is seen; 0 of a flat plane."""
    inside = (seen > seen.min()) & (seen < seen.max())
    if data.intensity == "mr":
        inside &= grey != 0  # air, which stays 0
    before, after = grey[inside].astype(np.float64), seen[inside].astype(np.float64)
    if before.size < 2 or before.std() == 0:
        return 0.0
    before -= before.mean()
    return float(abs((before * after).sum() / (before**2).sum()))
