"""Patch, depth and batch of a U-Net from spacing and size, by the rules of nnU-Net, simplified.

Source: Isensee et al. 2021, Nature Methods 18:203, and ``nnunetv2/experiment_planning`` (version 2,
Apache-2.0): the rules are written anew here, nothing is copied. The patch begins as large as the
median image (at most 256^3 voxels of equal millimetres a side, 2048^2 in 2D). Each axis is halved
as long as 4 voxels stay. While the network would need more memory than nnU-Net's reference network
on a card of 8 GB, the axis that is longest beside the median image gets one step shorter. What is
left of the memory goes into the batch, which holds at most 5 % of all training voxels.

Simpler than nnU-Net: all axes are halved equally often and kernels are 3 on each axis, as the
network ``dynunet`` here does it, so that coarse axes (thick slices) make it less deep; there is one
resolution, no cascade.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_LEAST_EDGE = 4  # voxels that stay at the bottom: UNet_featuremap_min_edge_length
_FIRST_WIDTH = 32  # UNet_base_num_features
_LARGEST_WIDTH = {2: 512, 3: 320}
_INITIAL_VOXELS = {2: 2048**2, 3: 256**3}
# Numbers of all feature maps of nnU-Net's reference network, and its batch: UNet_reference_val_*.
_REFERENCE = {2: (85_000_000, 12), 3: (560_000_000, 2)}
_CONVOLUTIONS = 2  # a level, on the way down and up
_LEAST_BATCH, _LARGEST_SHARE = 2, 0.05
_LEVELS = (3, 6)  # of the network "dynunet" here


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """What is trained with.

    Attributes:
        patch: Voxels of each axis.
        widths: Channels of each level; each further level halves all axes.
        batch: Patches of a training step.
        memory: Numbers in the feature maps of one patch, over nnU-Net's reference.
    """

    patch: tuple[int, ...]
    widths: tuple[int, ...]
    batch: int
    memory: float


def plan_network(
    spacing: Sequence[float], size: Sequence[float], images: float, classes: int
) -> NetworkPlan:
    """Return the plan for images of a median size.

    Args:
        spacing: Millimetres a voxel after resampling; equal numbers where it is not known.
        size: Median voxels of each axis after resampling.
        images: Training images of all sites.
        classes: Outputs of the network.
    """
    dimensions = len(size)
    reference, reference_batch = _REFERENCE[dimensions]
    edge = [1 / step for step in spacing]
    scale = (_INITIAL_VOXELS[dimensions] / math.prod(edge)) ** (1 / dimensions)
    patch = [min(length * scale, median) for length, median in zip(edge, size, strict=True)]
    levels, fitted = _fitted(patch)
    while (numbers := feature_numbers(fitted, _widths(levels, dimensions), classes)) > reference:
        ratios = [have / median for have, median in zip(fitted, size, strict=True)]
        longest = ratios.index(max(ratios))
        shorter = [float(voxels) for voxels in fitted]
        shorter[longest] -= 2 ** (levels - 1)
        if shorter[longest] < 2 ** (levels - 1):
            break
        levels, fitted = _fitted(shorter)
    batch = round(reference / numbers * reference_batch)
    share = _LARGEST_SHARE * images * math.prod(size) / math.prod(fitted)
    batch = max(min(batch, round(share)), _LEAST_BATCH)
    return NetworkPlan(fitted, _widths(levels, dimensions), batch, numbers / reference)


def feature_numbers(patch: Sequence[int], widths: Sequence[int], classes: int) -> int:
    """Return how many numbers the feature maps of one patch hold, as nnU-Net counts them."""
    voxels, axes = float(math.prod(patch)), len(patch)
    sizes: list[float] = [voxels / 2 ** (axes * level) for level in range(len(widths))]
    pairs = list(zip(sizes, widths, strict=True))
    down: float = sum(_CONVOLUTIONS * size * width for size, width in pairs)
    up: float = sum(
        (_CONVOLUTIONS + 1) * size * width + (classes * size if level == 0 else 0)
        for level, (size, width) in enumerate(pairs[:-1])
    )
    return round(float(down + up))


def _fitted(patch: Sequence[float]) -> tuple[int, tuple[int, ...]]:
    """Return the levels that a patch allows, and the patch grown to what they divide."""
    poolings = min(_poolings(length) for length in patch)
    least, most = _LEVELS
    levels = min(max(poolings + 1, least), most)
    step = 2 ** (levels - 1)
    # Two voxels stay at the bottom: a normalisation cannot train on one.
    return levels, tuple(max(math.ceil(length / step - 1e-9), 2) * step for length in patch)


def _poolings(length: float) -> int:
    count = 0
    while length >= 2 * _LEAST_EDGE:
        length, count = length / 2, count + 1
    return count


def _widths(levels: int, dimensions: int) -> tuple[int, ...]:
    return tuple(min(_FIRST_WIDTH * 2**n, _LARGEST_WIDTH[dimensions]) for n in range(levels))
