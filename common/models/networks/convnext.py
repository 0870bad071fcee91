"""A ConvNeXt of a laptop's size (Liu et al. 2022, arXiv 2201.03545)."""

from itertools import pairwise

from torch import Tensor, nn

from wardround.common.models.networks.small import CONVOLUTION

BLOCKS = 2  # of a level; ConvNeXt-T has 3, 3, 9 and 3
_WIDER = 4  # inside of a block


class ConvNeXt(nn.Module):
    """Levels of depthwise convolutions with what is narrow, wide and narrow again behind them.

    Unlike the paper's it halves the image once at the start, and not twice: a small image has
    nothing to spare. Its normalisation is that of one image over all channels and places, as that
    of the paper's first layers nearly is: no patient is mixed with another, and no statistics are
    kept that sites would have to share. There is no layer scale, which 18 blocks need and 6 do not.
    """

    def __init__(self, planes: int, outputs: int, dimensions: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        convolution = CONVOLUTION[dimensions]
        layers: list[nn.Module] = [
            convolution(planes, widths[0], 3, stride=2, padding=1),
            nn.GroupNorm(1, widths[0]),
        ]
        layers += [_Block(widths[0], dimensions) for _ in range(BLOCKS)]
        for before, after in pairwise(widths):
            layers += [
                nn.GroupNorm(1, before),
                convolution(before, after, 3, stride=2, padding=1),
                *(_Block(after, dimensions) for _ in range(BLOCKS)),
            ]
        self.features = nn.Sequential(*layers)
        self.normalisation = nn.GroupNorm(1, widths[-1])
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, K)`` of images ``(B, planes, *spatial)``."""
        found: Tensor = self.normalisation(self.features(images))
        logits: Tensor = self.head(found.flatten(2).mean(2))
        return logits


class _Block(nn.Module):
    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__()
        convolution = CONVOLUTION[dimensions]
        side = 7 if dimensions == 2 else 5
        self.branch = nn.Sequential(
            convolution(width, width, side, padding=side // 2, groups=width),
            nn.GroupNorm(1, width),
            convolution(width, _WIDER * width, 1),
            nn.GELU(),
            convolution(_WIDER * width, width, 1),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape."""
        found: Tensor = maps + self.branch(maps)
        return found
