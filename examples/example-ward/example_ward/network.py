"""Two networks: any torch.nn.Module whose arguments have the names that Wardround fills in."""

import torch
from torch import Tensor, nn


def _block(spatial_dims: int, inputs: int, outputs: int) -> nn.Module:
    convolution = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
    # Group normalisation looks at one image alone, which privacy for patients needs.
    return nn.Sequential(
        convolution(inputs, outputs, 3, padding=1, bias=False),
        nn.GroupNorm(min(4, outputs), outputs),
        nn.SiLU(),
    )


class SmallClassifier(nn.Module):
    """Two convolutions, a mean over the image, one linear layer."""

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, width: int = 8
    ) -> None:
        super().__init__()
        pool = nn.AdaptiveAvgPool2d if spatial_dims == 2 else nn.AdaptiveAvgPool3d
        self.body = nn.Sequential(
            _block(spatial_dims, in_channels, width), _block(spatial_dims, width, 2 * width)
        )
        self.pool = pool(1)
        self.head = nn.Linear(2 * width, out_channels)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, out_channels) of images (B, in_channels, *spatial)."""
        return self.head(self.pool(self.body(images)).flatten(1))


class GatedUNet(nn.Module):
    """A U-Net of two levels whose skip connection is weighed by a gate."""

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, width: int = 8
    ) -> None:
        super().__init__()
        convolution = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        pool = nn.AvgPool2d if spatial_dims == 2 else nn.AvgPool3d
        self.down = _block(spatial_dims, in_channels, width)
        self.pool = pool(2)
        self.bottom = _block(spatial_dims, width, 2 * width)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.gate = convolution(2 * width, width, 1)
        self.join = _block(spatial_dims, 3 * width, width)
        self.head = convolution(width, out_channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, out_channels, *spatial) of images (B, in_channels, *spatial)."""
        fine = self.down(images)
        coarse = self.up(self.bottom(self.pool(fine)))
        gated = fine * torch.sigmoid(self.gate(coarse))
        return self.head(self.join(torch.cat([gated, coarse], dim=1)))
