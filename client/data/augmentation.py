"""Random changes of a whole training batch: drawn first, then applied, on any device.

A preset only makes what could have been acquired: no flips where a body has a left and a right.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from wardround.client.data.batch import to_device

if TYPE_CHECKING:
    from wardround.client.data.rare_changes import RareChange


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationPreset:
    """The ranges that a preset draws from, each even around its middle.

    Attributes:
        flips: Whether an image may be mirrored and turned by 90 degrees.
        rotation: Largest angle in degrees, about each axis.
        translation: Largest shift as a part of the image's size.
        zoom: Largest change of size: factors from ``1 - zoom`` to ``1 + zoom``.
        gamma: Largest ``|log|`` of the exponent of the grey curve.
        gain: Largest change of contrast: factors from ``1 - gain`` to ``1 + gain``.
        offset: Largest change of brightness, in standard deviations of the image.
        noise: Largest standard deviation of added noise, in those of the image.
        mirrors: Whether an image may be mirrored along each axis, and not turned by 90 degrees.
        moved: Chance that an image is turned, and by itself that it is zoomed.
        rare: Whether the changes of :mod:`rare_changes` befall some of the images.
    """

    flips: bool = False
    rotation: float = 0.0
    translation: float = 0.0
    zoom: float = 0.0
    gamma: float = 0.0
    gain: float = 0.0
    offset: float = 0.0
    noise: float = 0.0
    mirrors: bool = False
    moved: float = 1.0
    rare: bool = False

    @property
    def moves(self) -> bool:
        """Whether pixels are interpolated."""
        return bool(self.rotation or self.translation or self.zoom)


PRESETS: dict[str, AugmentationPreset] = {
    "none": AugmentationPreset(),
    "light": AugmentationPreset(translation=0.05, gain=0.1, offset=0.1),
    "xray": AugmentationPreset(rotation=7, translation=0.05, zoom=0.1, gain=0.1, offset=0.1),
    # Hounsfield units mean something: CT keeps its grey values.
    "ct": AugmentationPreset(rotation=10, translation=0.05, zoom=0.1, noise=0.05),
    "mr": AugmentationPreset(
        rotation=10, translation=0.05, zoom=0.1, gamma=0.3, gain=0.1, noise=0.1
    ),
    "dermoscopy": AugmentationPreset(
        flips=True, rotation=15, translation=0.05, zoom=0.15, gain=0.15, offset=0.15
    ),
    "ultrasound": AugmentationPreset(
        rotation=10, translation=0.05, zoom=0.1, gamma=0.3, gain=0.1, noise=0.1
    ),
    "histology": AugmentationPreset(flips=True, gain=0.15, offset=0.15, noise=0.05),
    # Isensee et al. 2021, supplementary note 4; a patient may lie on either side there.
    "nnunet": AugmentationPreset(mirrors=True, rotation=30, zoom=0.3, moved=0.2, rare=True),
}


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


def draw(
    preset: AugmentationPreset,
    batch_size: int,
    dimensions: int,
    generator: Generator,
    spacings: Tensor | None = None,
) -> AugmentationParameters:
    """Draw what happens to a batch.

    Args:
        preset: One of :data:`PRESETS`.
        batch_size: Number of images.
        dimensions: 2 or 3.
        generator: Of the CPU; the only source of randomness.
        spacings: ``(B, dimensions)`` millimetres a voxel along each axis of the images, on the
            CPU: an angle is one of the body, not of voxels. None where voxels are cubes.
    """

    def even(largest: float, *shape: int) -> Tensor:
        return (torch.rand(batch_size, *shape, generator=generator) * 2 - 1) * largest

    def some(largest: float, of: Callable[[Tensor], Tensor]) -> Tensor | None:
        return of(even(largest)) if largest else None

    flips = transposes = affine = moved = None
    if preset.mirrors:
        flips = torch.rand(batch_size, dimensions, generator=generator) < 0.5
    if preset.flips:
        coins = torch.rand(batch_size, dimensions + 1, generator=generator) < 0.5
        flips, transposes = coins[:, :dimensions], coins[:, dimensions]
    if preset.moves:
        angles = even(math.radians(preset.rotation), 1 if dimensions == 2 else 3)
        sizes = None
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
        affine = affine if moved is None else affine[moved]
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


def _rare(batch_size: int, generator: Generator) -> "tuple[RareChange, ...]":
    from wardround.client.data.rare_changes import draw_rare

    return draw_rare(batch_size, generator)


def apply(
    images: Tensor, masks: Tensor | None, parameters: AugmentationParameters
) -> tuple[Tensor, Tensor | None]:
    """Return the changed batch; nothing is drawn here but the noise of the drawn seed.

    Args:
        images: ``(B, C, *spatial)`` float on any device.
        masks: ``(B, *spatial)`` labels, moved as the images but never mixed, or None.
        parameters: From :func:`draw`, for as many images.
    """
    parameters = parameters.arrived(to_device(parameters.tensors.values(), images.device))
    flips, transposes = parameters.flips, parameters.transposes
    if flips is not None:
        images = _flipped(images, flips, transposes)
        masks = None if masks is None else _flipped(masks, flips, transposes)
    if parameters.affine is not None:
        images, masks = _some_moved(images, masks, parameters.affine, parameters.moved)
    images = _recoloured(images, parameters)
    if parameters.rare:
        from wardround.client.data.rare_changes import apply_rare

        images = apply_rare(images, parameters.rare)
    return images, masks


_LEAST_LEFT = 0.25  # of a box's size, within the image; of less nobody could say what it is


def move_boxes(boxes: Tensor, size: Sequence[int], parameters: AugmentationParameters) -> Tensor:
    """Return the boxes of a batch, moved as :func:`apply` moves its images, exactly.

    What leaves the image is cut off; a box of which less than a quarter stays is taken away.

    Args:
        boxes: ``(B, M, 1 + 2 dims)``: class, lo.., hi.. in voxels; rows of class -1 are padding.
        size: ``(*spatial)`` of the images.
        parameters: From :func:`draw`, without rotations: a box that is turned is no box.

    Returns:
        The same shape; boxes that were taken away are padding.
    """
    parameters = parameters.arrived(to_device(parameters.tensors.values(), boxes.device))
    classes, low, high = boxes[..., :1], *boxes[..., 1:].chunk(2, dim=-1)
    sides = torch.tensor(size, dtype=boxes.dtype, device=boxes.device)
    flips, transposes = parameters.flips, parameters.transposes
    if flips is not None and transposes is not None:
        chosen = flips[:, None]
        low, high = torch.where(chosen, sides - high, low), torch.where(chosen, sides - low, high)
        if size[-1] == size[-2]:
            order = [*range(len(size) - 2), len(size) - 1, len(size) - 2]
            swapped = transposes[:, None, None]
            low = torch.where(swapped, low[..., order], low)
            high = torch.where(swapped, high[..., order], high)
    if parameters.affine is not None:
        # From the new image to the old one, x first, in halves of the image's size.
        scale = parameters.affine.diagonal(dim1=1, dim2=2).flip(1)[:, None]
        shift = parameters.affine[:, :, -1].flip(1)[:, None]
        low, high = (
            ((2 * edge / sides - 1 - shift) / scale + 1) / 2 * sides for edge in (low, high)
        )
    whole = (high - low).prod(-1, keepdim=True)
    low, high = low.clamp(min=0), torch.minimum(high, sides)
    left = (high - low).clamp(min=0).prod(-1, keepdim=True)
    stays = (classes >= 0) & (left >= _LEAST_LEFT * whole)
    empty = torch.zeros_like(boxes)
    empty[..., 0] = -1
    return torch.where(stays, torch.cat([classes, low, high], dim=-1), empty)


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


def _flipped(array: Tensor, flips: Tensor, transposes: Tensor | None) -> Tensor:
    """Return the array mirrored; with the swap of two axes these are all turns by 90 degrees."""
    shape = (-1, *(1,) * (array.ndim - 1))
    dimensions = flips.shape[1]
    for axis in range(dimensions):
        chosen = flips[:, axis].reshape(shape)
        array = torch.where(chosen, array.flip(axis - dimensions), array)
    if transposes is not None and array.shape[-1] == array.shape[-2]:
        array = torch.where(transposes.reshape(shape), array.transpose(-1, -2), array)
    return array


def _some_moved(
    images: Tensor, masks: Tensor | None, affine: Tensor, places: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Return the batch, of which some images are moved; None for all of them."""
    if places is None:
        return _moved(images, masks, affine)
    if not len(places):
        return images, masks
    some = None if masks is None else masks[places]
    moved, some = _moved(images[places], some, affine)
    images = images.index_copy(0, places, moved)
    return images, None if masks is None or some is None else masks.index_copy(0, places, some)


def _moved(images: Tensor, masks: Tensor | None, affine: Tensor) -> tuple[Tensor, Tensor | None]:
    # affine_grid counts each axis from -1 to 1: without this, turning would shear an oblong image.
    # Filled on the device: a tensor made of numbers here would be copied there, with a wait.
    sizes = torch.stack([images.new_full((), size) for size in images.shape[:1:-1]])
    linear = affine[:, :, :-1] * (sizes[None, None, :] / sizes[None, :, None])
    theta = torch.cat([linear, affine[:, :, -1:]], dim=2).to(images.dtype)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if masks is None:
        return moved, None
    labels = F.grid_sample(
        masks[:, None].to(images.dtype),
        grid,
        mode="nearest",
        padding_mode="border",
        align_corners=False,
    )
    return moved, labels[:, 0].to(masks.dtype)


def _recoloured(images: Tensor, parameters: AugmentationParameters) -> Tensor:
    axes = tuple(range(1, images.ndim))
    shape = (-1, *(1,) * (images.ndim - 1))

    def column(values: Tensor) -> Tensor:
        return values.reshape(shape).to(images)

    if parameters.gamma is not None:
        low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
        span = (high - low).clamp(min=1e-6)
        bent = ((images - low) / span) ** column(parameters.gamma) * span + low
        # An exact zero is what "mr" leaves for air and for what was cut away: no scanner bends it.
        images = torch.where(images == 0, images, bent)
    if parameters.gain is not None:
        images = images * column(parameters.gain)
    if parameters.offset is None and parameters.noise is None:
        return images
    deviation = images.std(axes, keepdim=True, correction=0)
    if parameters.offset is not None:
        images = images + column(parameters.offset) * deviation
    if parameters.noise is not None:
        source = Generator(images.device).manual_seed(parameters.noise_seed)
        noise = torch.randn(images.shape, generator=source, device=images.device)
        images = images + noise.to(images) * column(parameters.noise) * deviation
    return images
