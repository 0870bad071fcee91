"""The intensity presets in torch, so that a gradient reaches an image's own grey values.

Each equals its preset of ``intensity.py`` but for rounding, its percentiles, means and deviations
included: an attack through them knows all of the preparation that an image goes through. So does a
harmonisation; the field that its bias correction divides by is taken as fixed in the gradient,
which is what backward-pass approximation does (Athalye et al. 2018, arXiv 1802.00420).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wardround.client.data.preprocessing.harmonisation import (
    foreground,
    knots,
    shading,
)
from wardround.client.data.preprocessing.intensity import SOFT_TISSUE, background_of
from wardround.common.study.sections.data import DataSection, Intensity
from wardround.common.study.sections.harmonisation import LANDMARK_PERCENTS, HarmonisationSection

_TAIL = 0.005
_SMALLEST = 1e-6
_Preset = Callable[[Tensor, bool, DataSection], Tensor]


def network_input(grey: Sequence[Tensor], eight_bit: Sequence[bool], data: DataSection) -> Tensor:
    """Return what the network sees of images in their own grey values.

    Args:
        grey: A channel each, ``(B, planes, *spatial)`` on the network's grid.
        eight_bit: Of each channel: whether the files held bytes.
        data: The study's contract.

    Returns:
        ``(B, C, *spatial)``, cropped and padded where the study has a size.
    """
    preset = _PRESETS[data.intensity]
    alike = [_harmonised(block, data.of_channel(place)) for place, block in enumerate(grey)]
    seen = [preset(block, is_byte, data) for block, is_byte in zip(alike, eight_bit, strict=True)]
    if data.size is not None:
        seen = [_centre_fit(block, data.size, background_of(data)) for block in seen]
    return torch.cat(seen, dim=1)


def _harmonised(block: Tensor, data: DataSection) -> Tensor:
    asked = data.harmonisation
    if not asked.is_asked:
        return block
    return torch.stack(
        [
            torch.stack([_harmonised_plane(p, asked, place) for place, p in enumerate(image)])
            for image in block
        ]
    )


def _harmonised_plane(plane: Tensor, asked: HarmonisationSection, place: int) -> Tensor:
    if asked.bias_correction:
        field = shading(plane.detach().cpu().numpy())
        plane = plane / torch.from_numpy(field).to(plane.device)
    if not asked.landmarks:
        return plane
    inside = foreground(plane.detach().cpu().numpy(), asked)
    counted = torch.from_numpy(inside).to(plane.device)
    values = plane[counted][None]
    if values.numel() == 0:
        return plane
    source = torch.cat([_percentile(values, p / 100).reshape(1) for p in LANDMARK_PERCENTS])
    return _matched(plane, source, asked, place)


def _matched(plane: Tensor, source: Tensor, asked: HarmonisationSection, place: int) -> Tensor:
    """Move grey values as the NumPy one does; where quantiles meet, only the first has a slope."""
    fixed = source.detach().double().cpu().numpy()
    places = torch.from_numpy(np.unique(fixed, return_index=True)[1]).to(plane.device)
    _, goes, _ = knots(fixed, np.array(asked.landmarks[place]))
    at = source[places]
    target = torch.from_numpy(goes).to(plane)
    if len(at) == 1:
        moved = plane - at[0] + target[0]
    else:
        inner = torch.minimum(torch.maximum(plane, at[0]), at[-1])
        low = (torch.searchsorted(at.detach(), inner.detach(), right=True) - 1).clamp(
            0, len(at) - 2
        )
        step = (target[low + 1] - target[low]) / (at[low + 1] - at[low])
        slope = (target[-1] - target[0]) / (at[-1] - at[0])
        beyond = (plane - at[0]).clamp_max(0) + (plane - at[-1]).clamp_min(0)
        moved = target[low] + step * (inner - at[low]) + slope * beyond
    if asked.foreground == "nonzero":
        return torch.where(plane == 0, torch.zeros_like(plane), moved)
    return moved


def _view(values: Tensor, like: Tensor) -> Tensor:
    return values.reshape(*values.shape, *(1,) * (like.ndim - values.ndim))


def _percentile(block: Tensor, fraction: float) -> Tensor:
    """Return a quantile of each image, linear between two values, as NumPy's."""
    ordered = block.flatten(1).sort(dim=1).values
    place = fraction * (ordered.shape[1] - 1)
    below = int(place)
    above = min(below + 1, ordered.shape[1] - 1)
    found = ordered[:, below] + (place - below) * (ordered[:, above] - ordered[:, below])
    return _view(found, block)


def _standardised(block: Tensor, dims: tuple[int, ...]) -> Tensor:
    mean = block.mean(dim=dims, keepdim=True)
    deviation = block.std(dim=dims, keepdim=True, unbiased=False)
    return (block - mean) / deviation.clamp_min(_SMALLEST)


def _image_dims(block: Tensor) -> tuple[int, ...]:
    return tuple(range(1, block.ndim))


def _plane_dims(block: Tensor) -> tuple[int, ...]:
    return tuple(range(2, block.ndim))


def _rescaled(block: Tensor) -> Tensor:
    low, high = _percentile(block, _TAIL), _percentile(block, 1 - _TAIL)
    return ((block - low) / (high - low).clamp_min(_SMALLEST)).clamp(0, 1)


def _as_stored(block: Tensor, eight_bit: bool, data: DataSection) -> Tensor:
    return block / 255 if eight_bit else block


def _xray(block: Tensor, eight_bit: bool, data: DataSection) -> Tensor:
    return _standardised(_rescaled(block), _image_dims(block))


def _ct(block: Tensor, eight_bit: bool, data: DataSection) -> Tensor:
    centre, width = data.window or SOFT_TISSUE
    if data.scaling is not None:
        mean, deviation = data.scaling
        return (block.clamp(centre - width / 2, centre + width / 2) - mean) / deviation
    return ((block - centre) / (width / 2)).clamp(-1, 1)


def _mr(block: Tensor, eight_bit: bool, data: DataSection) -> Tensor:
    return torch.stack([torch.stack([_mr_plane(plane) for plane in image]) for image in block])


def _mr_plane(plane: Tensor) -> Tensor:
    tissue = plane != 0
    values = plane[tissue]
    if values.numel() == 0:
        return torch.zeros_like(plane)
    low, high = (_percentile(values[None], q).reshape(()) for q in (_TAIL, 1 - _TAIL))
    scored = _standardised(values.clamp(low, high)[None], (1,))[0]
    return torch.zeros_like(plane).masked_scatter(tissue, scored)


def _dermoscopy(block: Tensor, eight_bit: bool, data: DataSection) -> Tensor:
    means = block.mean(dim=_plane_dims(block), keepdim=True)
    balanced = block * (means.mean(dim=1, keepdim=True) / means.clamp_min(_SMALLEST))
    if eight_bit:
        scaled = balanced / 255
    else:
        scaled = balanced / _percentile(balanced, 1 - _TAIL).clamp_min(_SMALLEST)
    return scaled.clamp(0, 1) * 2 - 1


def _ultrasound(block: Tensor, eight_bit: bool, data: DataSection) -> Tensor:
    bent = torch.log1p(10 * _rescaled(_median(block)))
    return _standardised(bent, _image_dims(block))


def _median(block: Tensor) -> Tensor:
    """Return the median of each pixel's 3x3 (3x3x3) neighbours, the edge repeated."""
    dimensions = block.ndim - 2
    windows = F.pad(block, (1,) * (2 * dimensions), mode="replicate")
    for axis in range(dimensions):
        windows = windows.unfold(2 + axis, 3, 1)
    return windows.flatten(block.ndim).median(dim=-1).values


def _histology(block: Tensor, eight_bit: bool, data: DataSection) -> Tensor:
    light: float | Tensor = 255.0
    if not eight_bit:
        light = block.amax(dim=_image_dims(block), keepdim=True).clamp_min(_SMALLEST)
    intensity = block.clamp_min(0) * (255 / light)
    return _standardised(-((intensity + 1) / 256).log10(), _plane_dims(block))


def _centre_fit(block: Tensor, size: Sequence[int], background: float | None) -> Tensor:
    if block.shape[2:] == tuple(size):
        return block
    shape = (*block.shape[:2], *size)
    if background is None:
        darkest = block.amin(dim=_image_dims(block), keepdim=True)
        result = darkest.expand(shape).clone()
    else:
        result = block.new_full(shape, background)
    source, target = [slice(None)] * 2, [slice(None)] * 2
    for have, want in zip(block.shape[2:], size, strict=True):
        kept = min(have, want)
        source.append(slice((have - kept) // 2, (have - kept) // 2 + kept))
        target.append(slice((want - kept) // 2, (want - kept) // 2 + kept))
    result[tuple(target)] = block[tuple(source)]
    return result


_PRESETS: dict[Intensity, _Preset] = {
    "none": _as_stored,
    "xray": _xray,
    "ct": _ct,
    "mr": _mr,
    "dermoscopy": _dermoscopy,
    "ultrasound": _ultrasound,
    "histology": _histology,
}
