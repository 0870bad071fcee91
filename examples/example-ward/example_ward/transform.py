"""A transform: a random change of one training image."""

import torch
from torch import Generator, Tensor

STRENGTH = 0.1


def speckle(
    image: Tensor, mask: Tensor | None, generator: Generator
) -> tuple[Tensor, Tensor | None]:
    """Multiply an image (C, *spatial) with noise around 1, as ultrasound has it."""
    noise = torch.randn(image.shape, generator=generator).to(image)
    return image * (1 + STRENGTH * noise), mask
