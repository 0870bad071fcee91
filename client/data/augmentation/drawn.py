"""What happens to each image of a batch, drawn before it is done."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from wardround.client.data.augmentation.presets import AugmentationPreset

if TYPE_CHECKING:
    from wardround.client.data.augmentation.rare_changes import RareChange


@dataclass(frozen=True, slots=True)
class AugmentationParameters:
    """What happens to each image of a batch; a part that a preset does not use is None.

    Attributes:
        flips: ``(B, dimensions)`` bool, one an axis.
        moved: ``(n,)`` int64: the images that ``affine`` is of; None for all of them.
        rare: What befalls some of the images, in its order.
        transposes: ``(B,)`` bool: whether the last two axes are swapped, where they are as long.
        affine: ``(B, dimensions, dimensions + 1)`` from the new image to the old one, x before y
            before z: turn and zoom in pixels, then the shift in halves of the image's size.
        gamma: ``(B,)`` exponents over the image's own range.
        gain: ``(B,)`` factors.
        offset: ``(B,)`` in standard deviations of the image.
        noise: ``(B,)`` in standard deviations of the image.
        noise_seed: Seed of the noise, drawn on the batch's own device.
    """

    flips: Tensor | None = None
    transposes: Tensor | None = None
    affine: Tensor | None = None
    gamma: Tensor | None = None
    gain: Tensor | None = None
    offset: Tensor | None = None
    noise: Tensor | None = None
    noise_seed: int = 0
    moved: Tensor | None = None
    rare: "tuple[RareChange, ...]" = ()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The parts that are used, by name: they travel to a device with their batch."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        parts = {name: part for name, part in found.items() if isinstance(part, Tensor)}
        for at, change in enumerate(self.rare):
            parts |= {f"{at}.places": change.places, f"{at}.amounts": change.amounts}
        return parts

    def arrived(self, there: Sequence[Tensor | None]) -> "AugmentationParameters":
        """Return the parameters as they arrived elsewhere: :attr:`tensors` in their order."""
        changed: dict[str, Any] = dict(zip(self.tensors, there, strict=True))
        rare = tuple(
            replace(one, places=changed.pop(f"{at}.places"), amounts=changed.pop(f"{at}.amounts"))
            for at, one in enumerate(self.rare)
        )
        return replace(self, rare=rare, **changed)


def draw_changes(
    preset: AugmentationPreset,
    batch_size: int,
    dimensions: int,
    generator: Generator,
    spacings: Tensor | None = None,
) -> AugmentationParameters:
    """Draw what happens to a batch.

    Args:
        preset: One of :data:`presets.PRESETS`.
        batch_size: Number of images.
        dimensions: 2 or 3.
        generator: Of the CPU; the only source of randomness.
        spacings: ``(B, dimensions)`` millimetres a voxel along each axis of the images, on the
            CPU: an angle is one of the body, not of voxels. None where voxels are cubes.
    """
    even = partial(_even, batch_size, generator)

    def some(largest: float, of: Callable[[Tensor], Tensor]) -> Tensor | None:
        return of(even(largest)) if largest else None

    flips = transposes = affine = moved = None
    if preset.mirrors:
        flips = torch.rand(batch_size, dimensions, generator=generator) < 0.5
    if preset.flips:
        coins = torch.rand(batch_size, dimensions + 1, generator=generator) < 0.5
        flips, transposes = coins[:, :dimensions], coins[:, dimensions]
    if preset.moves:
        affine, moved = _draw_moves(preset, batch_size, dimensions, generator, spacings)
    noise = some(preset.noise, torch.abs)
    return AugmentationParameters(
        flips,
        transposes,
        affine,
        some(preset.gamma, torch.exp),
        some(preset.gain, lambda change: 1 + change),
        some(preset.offset, torch.clone),
        noise,
        0 if noise is None else int(torch.randint(2**31, (), generator=generator)),
        moved,
        _rare(batch_size, generator) if preset.rare else (),
    )


def _even(batch_size: int, generator: Generator, largest: float, *shape: int) -> Tensor:
    """Return numbers in [-largest, largest], ``(B, *shape)``."""
    return (torch.rand(batch_size, *shape, generator=generator) * 2 - 1) * largest


def _draw_moves(
    preset: AugmentationPreset,
    batch_size: int,
    dimensions: int,
    generator: Generator,
    spacings: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Draw how images are turned, shifted and scaled.

    Returns:
        ``(M, dimensions, dimensions + 1)``, and ``(M,)`` which images those are; None for all.
    """
    even, moved, sizes = partial(_even, batch_size, generator), None, None
    angles = even(math.radians(preset.rotation), 1 if dimensions == 2 else 3)
    if preset.moved < 1:
        coins = torch.rand(batch_size, 2, generator=generator) < preset.moved
        angles, sizes = angles * coins[:, :1], coins[:, 1]
        moved = coins.any(1).nonzero().flatten()
    turn = _rotations(angles)
    if spacings is not None:
        turn = turn * _stretches(spacings)
    shift = even(2 * preset.translation, dimensions, 1)
    zoom = even(preset.zoom, 1, 1)
    affine = torch.cat(
        [turn / (1 + (zoom if sizes is None else zoom * sizes[:, None, None])), shift], dim=2
    )
    return (affine if moved is None else affine[moved]), moved


def _rare(batch_size: int, generator: Generator) -> "tuple[RareChange, ...]":
    from wardround.client.data.augmentation.rare_changes import draw_rare

    return draw_rare(batch_size, generator)


def _rotations(angles: Tensor) -> Tensor:
    """Return ``(B, d, d)`` rotations: one angle about the axis of the plane, or three."""
    batch, count = angles.shape
    dimensions = 2 if count == 1 else 3
    total = torch.eye(dimensions).repeat(batch, 1, 1)
    for place, (first, second) in enumerate(((0, 1), (0, 2), (1, 2))[:count]):
        cosine, sine = angles[:, place].cos(), angles[:, place].sin()
        turn = torch.eye(dimensions).repeat(batch, 1, 1)
        turn[:, first, first] = turn[:, second, second] = cosine
        turn[:, first, second], turn[:, second, first] = -sine, sine
        total = total @ turn
    return total


def _stretches(spacings: Tensor) -> Tensor:
    """Return ``(B, d, d)`` factors from turns in millimetres to turns in voxels.

    Where ``R`` turns millimetres and ``s`` is the voxel size, ``R[i, j] s[j] / s[i]`` turns voxels.

    Args:
        spacings: ``(B, d)`` in the order of the array's axes: the last is x.
    """
    sizes = spacings.flip(1)
    sizes = sizes / sizes[:, :1]  # of cubes exactly 1: nothing is rounded
    return sizes[:, None, :] / sizes[:, :, None]
