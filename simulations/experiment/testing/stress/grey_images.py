"""Test images on the network's grid in their own grey values: what an attacker changes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.data.preprocessing.differentiable import network_input
from wardround.client.data.preprocessing.grey_values import LEVELS, grey_unit
from wardround.client.data.preprocessing.preprocessing import grey_channels, read_channels
from wardround.client.training.adversarial import Ball
from wardround.common.study.sections.data import DataSection
from wardround.common.study.study import Study
from wardround.simulations.experiment.testing.stress.finished import Tested

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class GreyImages:
    """B images of one shape before their intensity preset.

    Attributes:
        values: ``(B, C, *spatial)``.
        radius: One 255th of the grey range; broadcast to the values, 0 where nothing may change.
        low: Least value that an image can have, broadcast likewise.
        high: Largest value.
        eight_bit: Of each channel: whether its files held bytes.
    """

    values: Tensor
    radius: Tensor
    low: Tensor
    high: Tensor
    eight_bit: tuple[bool, ...]

    @property
    def kind(self) -> tuple[object, ...]:
        """Images of one kind can be stacked."""
        return tuple(self.values.shape[1:]), self.eight_bit

    def ball(self, epsilon: float) -> Ball:
        """Return what an attacker may choose from, whose bound is ``epsilon`` 255ths."""
        return Ball(self.values, epsilon * self.radius, self.low, self.high)

    def seen(self, values: Tensor, study: Study) -> Tensor:
        """Return what the network sees of images ``(B, C, *spatial)`` in their own grey values."""
        channels = values.chunk(len(self.eight_bit), dim=1)
        return network_input(channels, self.eight_bit, study.data)


def grey_images(
    patients: Tested, places: Sequence[int], study: Study
) -> Iterator[tuple[tuple[int, ...], GreyImages]]:
    """Yield examinations of one kind that follow each other, stacked, and where they are.

    Those of a segmentation come one by one: volumes with their gradients are large.

    Args:
        patients: A site's.
        places: Places in the cohort.
        study: Says the preparation.
    """
    group: list[int] = []
    held: list[GreyImages] = []
    for place in places:
        one = _grey_of(patients, place, study)
        if held and (study.task.dense or one.kind != held[0].kind):
            yield tuple(group), _stacked(held)
            group, held = [], []
        group.append(place)
        held.append(one)
    if held:
        yield tuple(group), _stacked(held)


def _grey_of(patients: Tested, place: int, study: Study) -> GreyImages:
    data = study.data
    channels = read_channels(patients.cohort.examinations[place], patients.site, study)
    blocks: list[Array] = []
    radii: list[Array] = []
    lows: list[Array] = []
    highs: list[Array] = []
    for grey, image in zip(grey_channels(channels, data), channels, strict=True):
        low, high = _range_of(grey, image.eight_bit)
        for plane in grey[0]:
            blocks.append(plane)
            radii.append(_radius_of(plane, grey_unit(grey, image.eight_bit, data), data))
            lows.append(np.full_like(plane, low))
            highs.append(np.full_like(plane, high))
    values, radius, low_of, high_of = (
        torch.from_numpy(np.stack(part)[None]) for part in (blocks, radii, lows, highs)
    )
    eight_bit = tuple(image.eight_bit for image in channels)
    return GreyImages(values, radius, low_of, high_of, eight_bit)


def _radius_of(plane: Array, unit: float, data: DataSection) -> Array:
    radius = np.full_like(plane, unit)
    if data.intensity == "mr":
        radius[plane == 0] = 0  # air, which skull stripping made and nobody can write to
    return radius


def _range_of(grey: Array, eight_bit: bool) -> tuple[float, float]:
    """Return the least and the largest value that an image can have: its own, or a byte's."""
    low, high = float(grey.min()), float(grey.max())
    return (min(low, 0.0), max(high, LEVELS)) if eight_bit else (low, high)


def _stacked(images: Sequence[GreyImages]) -> GreyImages:
    return GreyImages(
        torch.cat([image.values for image in images]),
        torch.cat([image.radius for image in images]),
        torch.cat([image.low for image in images]),
        torch.cat([image.high for image in images]),
        images[0].eight_bit,
    )
