"""Changes that befall some images of a batch and leave the others alone, as nnU-Net's do.

Each is computed on the images that it befalls and on no others, which is what makes it cheap.
Chances and ranges are those of Isensee et al. 2021, supplementary note 4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor


@dataclass(frozen=True, slots=True)
class RareChange:
    """One kind of change, of those images of a batch that it befalls.

    Attributes:
        kind: A key of :data:`NNUNET`.
        places: ``(n,)`` int64: which images.
        amounts: ``(n,)`` float: how much of it.
        known: The same amounts as numbers of Python, where a shape follows from them: a device is
            not asked for them.
        seed: Of what is drawn on the images' own device.
    """

    kind: str
    places: Tensor
    amounts: Tensor
    known: tuple[float, ...]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of change.

    Attributes:
        chance: That an image undergoes it.
        least: The smallest amount.
        most: The largest.
        change: From ``(n, C, *spatial)`` and the change to the same shape.
    """

    chance: float
    least: float
    most: float
    change: Callable[[Tensor, RareChange], Tensor]


def draw_rare(batch_size: int, generator: Generator) -> tuple[RareChange, ...]:
    """Draw what befalls which image of a batch, in the order in which it is applied.

    Args:
        batch_size: Number of images.
        generator: Of the CPU; the only source of randomness.
    """
    drawn = []
    for name, kind in NNUNET.items():
        coins, amounts = torch.rand(2, batch_size, generator=generator)
        places = (coins < kind.chance).nonzero().flatten()
        if not len(places):
            continue
        chosen = kind.least + (kind.most - kind.least) * amounts[places]
        seed = int(torch.randint(2**31, (), generator=generator)) if name == "noise" else 0
        drawn.append(RareChange(name, places, chosen, tuple(chosen.tolist()), seed))
    return tuple(drawn)


def apply_rare(images: Tensor, changes: Sequence[RareChange]) -> Tensor:
    """Return the changed batch.

    Args:
        images: ``(B, C, *spatial)`` float on any device; they are not changed.
        changes: From :func:`draw_rare`, for as many images, on the same device.
    """
    if not changes:
        return images
    images = images.clone()
    for change in changes:
        changed = NNUNET[change.kind].change(images[change.places], change)
        images.index_copy_(0, change.places, changed)
    return images


def _noise(images: Tensor, change: RareChange) -> Tensor:
    """Add noise of a variance in those of the image."""
    source = Generator(images.device).manual_seed(change.seed)
    noise = torch.randn(images.shape, generator=source, device=images.device, dtype=images.dtype)
    deviation = images.std(_axes(images), keepdim=True, correction=0)
    return torch.addcmul(images, noise, _column(change.amounts.sqrt(), images) * deviation)


def _blur(images: Tensor, change: RareChange) -> Tensor:
    """Blur by a Gaussian whose standard deviation is an amount of voxels, an axis at a time."""
    reach = 2
    steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (steps / change.amounts.to(images)[:, None]) ** 2)
    weights = weights / weights.sum(1, keepdim=True)
    for axis in range(2, images.ndim):
        size = images.shape[axis]
        pads = [reach * (place == axis) for place in range(images.ndim - 1, 1, -1) for _ in "ab"]
        wide = F.pad(images, pads, mode="replicate")
        images = torch.stack(
            [
                wide.narrow(axis, step, size) * _column(weights[:, step], images)
                for step in range(2 * reach + 1)
            ]
        ).sum(0)
    return images


def _brightness(images: Tensor, change: RareChange) -> Tensor:
    return images * _column(change.amounts, images)


def _contrast(images: Tensor, change: RareChange) -> Tensor:
    """Stretch around the mean, within the range that the image had."""
    axes = _axes(images)
    mean = images.mean(axes, keepdim=True)
    low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
    return ((images - mean) * _column(change.amounts, images) + mean).clamp(low, high)


def _low_resolution(images: Tensor, change: RareChange) -> Tensor:
    """Take every so many voxels alone, and interpolate between them."""
    spatial = images.shape[2:]
    smooth = "trilinear" if len(spatial) == 3 else "bilinear"
    parts = []
    for image, factor in zip(torch.split(images, 1), change.known, strict=True):
        size = [max(1, round(side * factor)) for side in spatial]
        coarse = F.interpolate(image, size=size, mode="nearest-exact")
        parts.append(F.interpolate(coarse, size=list(spatial), mode=smooth))
    return torch.cat(parts)


def _gamma(images: Tensor, change: RareChange) -> Tensor:
    """Bend the grey curve; mean and deviation stay those of the image."""
    axes = _axes(images)
    low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
    span = (high - low).clamp(min=1e-6)
    bent = ((images - low) / span) ** _column(change.amounts, images)
    deviation, mean = torch.std_mean(images, axes, keepdim=True, correction=0)
    spread, middle = torch.std_mean(bent, axes, keepdim=True, correction=0)
    return (bent - middle) * (deviation / spread.clamp(min=1e-6)) + mean


def _inverted_gamma(images: Tensor, change: RareChange) -> Tensor:
    return -_gamma(-images, change)


NNUNET: dict[str, _Kind] = {
    "noise": _Kind(0.1, 0.0, 0.1, _noise),
    "blur": _Kind(0.2, 0.5, 1.0, _blur),
    "brightness": _Kind(0.15, 0.75, 1.25, _brightness),
    "contrast": _Kind(0.15, 0.75, 1.25, _contrast),
    "low-resolution": _Kind(0.25, 0.5, 1.0, _low_resolution),
    "inverted-gamma": _Kind(0.1, 0.7, 1.5, _inverted_gamma),
    "gamma": _Kind(0.3, 0.7, 1.5, _gamma),
}


def _axes(images: Tensor) -> tuple[int, ...]:
    return tuple(range(1, images.ndim))


def _column(values: Tensor, images: Tensor) -> Tensor:
    return values.reshape(-1, *(1,) * (images.ndim - 1)).to(images)
