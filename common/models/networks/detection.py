"""A network that finds boxes: a feature pyramid with one head for all its levels.

RetinaNet (Lin et al. 2017, "Focal loss for dense object detection") on a pyramid of features (Lin
et al. 2017, "Feature pyramid networks"), with group normalisation, so that no patient's answer
depends on who else is in the batch. At each place of each level one square anchor is asked: what
lies here, and how do its sides differ from yours? One anchor is enough for the matching of ATSS
(Zhang et al. 2020), which takes those nearest to a true box.

MONAI's network needs torchvision for its pyramid, and its anchors guess the step between places
from the size of the image; so both are our own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wardround.common.models.networks.small import ACTIVATIONS, normalisation_layer
from wardround.common.study.registry import FINEST_STRIDE

_CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_HEAD_LAYERS = 2  # 4 in Lin et al. for COCO
_FOUND_AT_FIRST = 0.01  # score of every anchor before training; Lin et al. 2017, section 4.1


@dataclass(frozen=True, slots=True)
class DetectorShape:
    """What a detector is built of.

    Attributes:
        dimensions: 2 or 3.
        planes: Channels of an image.
        classes: K.
        widths: Channels of each level; level i has a step of ``2 ** (i + 1)`` voxels. The pyramid
            has all levels but the first.
        anchors: Side of the anchors of each level of the pyramid, in voxels; rising.
        activation: As ``model.activation``.
    """

    dimensions: int
    planes: int
    classes: int
    widths: tuple[int, ...]
    anchors: tuple[int, ...]
    activation: str = "default"

    @property
    def width(self) -> int:
        """Channels of each level of the pyramid and of the head: of the pyramid's second level.

        256 in Lin et al., for the photographs of COCO.
        """
        return self.widths[min(2, len(self.widths) - 1)]

    def convolution(self, before: int, after: int, kernel: int = 3, step: int = 1) -> nn.Module:
        """Return a convolution that keeps the size, but for its step."""
        kind = _CONVOLUTION[self.dimensions]
        return kind(before, after, kernel, stride=step, padding=kernel // 2)

    def block(self, before: int, after: int, step: int = 1) -> nn.Sequential:
        """Return a convolution, a normalisation and an activation."""
        return nn.Sequential(
            self.convolution(before, after, step=step),
            normalisation_layer("group", after, self.dimensions),
            ACTIVATIONS[self.activation](),
        )


class BoxDetector(nn.Module):
    """Says of every anchor what it holds, and where that lies."""

    def __init__(self, shape: DetectorShape) -> None:
        super().__init__()
        self._anchors, self._dimensions = shape.anchors, shape.dimensions
        self.backbone = Backbone(shape)
        self.pyramid = Pyramid(shape)
        self.head = BoxHead(shape)

    def forward(self, images: Tensor) -> Tensor:
        """Return what is said of each of A anchors, ``(B, A, K + 4 dims)``.

        K logits; how far the box lies from the anchor, in the anchor's sides, and the logarithm of
        how much longer it is, ``2 dims``; and the anchor itself, ``lo.., hi..`` in voxels, ``2
        dims``: what is said has no meaning without it.

        Args:
            images: ``(B, planes, *spatial)``.
        """
        levels = self.pyramid(self.backbone(images))
        said = torch.cat([self.head(level) for level in levels], dim=1)
        sizes = [level.shape[2:] for level in levels]
        anchors = anchors_of(sizes, self._anchors, images.device)
        return torch.cat([said, anchors.expand(len(said), *anchors.shape)], dim=2)


class Backbone(nn.Module):
    """Residual blocks, each of which halves the image (He et al. 2016)."""

    def __init__(self, shape: DetectorShape) -> None:
        super().__init__()
        self.stem = shape.block(shape.planes, shape.widths[0], step=2)
        self.stages = nn.ModuleList(
            Residual(shape, before, after) for before, after in pairwise(shape.widths)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the levels ``(B, width, *places)``, of steps 4, 8, ..."""
        seen, levels = self.stem(images), list[Tensor]()
        for stage in self.stages:
            seen = stage(seen)
            levels.append(seen)
        return levels


class Residual(nn.Module):
    """Two convolutions beside a shortcut; the first of each halves the image."""

    def __init__(self, shape: DetectorShape, before: int, after: int) -> None:
        super().__init__()
        self.first = shape.block(before, after, step=2)
        self.second = shape.convolution(after, after)
        self.normalisation = normalisation_layer("group", after, shape.dimensions)
        self.shortcut = shape.convolution(before, after, kernel=1, step=2)
        self.activation = ACTIVATIONS[shape.activation]()

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(B, after, *half)`` of ``(B, before, *spatial)``."""
        changed = self.normalisation(self.second(self.first(images)))
        result: Tensor = self.activation(changed + self.shortcut(images))
        return result


class Pyramid(nn.Module):
    """Brings what the coarse levels know to the fine ones."""

    def __init__(self, shape: DetectorShape) -> None:
        super().__init__()
        self.across = nn.ModuleList(
            shape.convolution(width, shape.width, kernel=1) for width in shape.widths[1:]
        )
        self.smooth = nn.ModuleList(shape.block(shape.width, shape.width) for _ in shape.widths[1:])

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Return the levels ``(B, width, *places)``, the finest first."""
        found: list[Tensor] = []
        above: Tensor | None = None
        for level, across, smooth in zip(
            reversed(levels), reversed(self.across), reversed(self.smooth), strict=True
        ):
            merged: Tensor = across(level)
            if above is not None:
                merged = merged + F.interpolate(above, size=merged.shape[2:], mode="nearest")
            above = merged
            found.append(smooth(merged))
        return found[::-1]


class BoxHead(nn.Module):
    """What every level is asked: which class, and how the box differs from the anchor."""

    def __init__(self, shape: DetectorShape) -> None:
        super().__init__()
        self.box_layers, self.class_layers = _head_layers(shape), _head_layers(shape)
        self.box = shape.convolution(shape.width, 2 * shape.dimensions)
        self.classes = shape.convolution(shape.width, shape.classes)
        for last in (self.box, self.classes):
            nn.init.normal_(last.weight, std=0.01)  # type: ignore[arg-type] # a Tensor by its type
            nn.init.zeros_(last.bias)  # type: ignore[arg-type] # a Tensor by its type
        prior = math.log(_FOUND_AT_FIRST / (1 - _FOUND_AT_FIRST))
        nn.init.constant_(self.classes.bias, prior)  # type: ignore[arg-type] # a Tensor by its type

    def forward(self, level: Tensor) -> Tensor:
        """Return ``(B, places, K + 2 dims)`` of a level ``(B, width, *places)``."""
        box, classes = self.box(self.box_layers(level)), self.classes(self.class_layers(level))
        return torch.cat([classes, box], dim=1).flatten(2).transpose(1, 2)


def _head_layers(shape: DetectorShape) -> nn.Sequential:
    return nn.Sequential(*(shape.block(shape.width, shape.width) for _ in range(_HEAD_LAYERS)))


def anchors_of(
    sizes: Sequence[Sequence[int]], sides: Sequence[int], device: torch.device
) -> Tensor:
    """Return the anchors ``(A, 2 dims)``, ``lo.., hi..`` in voxels of the image.

    Args:
        sizes: Places along each axis of each level.
        sides: Of each level's anchors, in voxels.
        device: Where they will lie.
    """
    found = []
    for level, (places, side) in enumerate(zip(sizes, sides, strict=True)):
        step = FINEST_STRIDE * 2**level
        axes = [(torch.arange(count, device=device) + 0.5) * step for count in places]
        centres = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
        found.append(torch.cat([centres - side / 2, centres + side / 2], dim=1))
    return torch.cat(found)
