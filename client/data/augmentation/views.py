"""Two changed views of each image, which a network is pretrained to tell from all others."""

import torch
from torch import Generator, Tensor

from wardround.client.data.augmentation.applied import apply_changes
from wardround.client.data.augmentation.drawn import draw_changes
from wardround.client.data.augmentation.presets import AugmentationPreset

_MEASURED_WITH = 20_221_118  # the seed of the parts that are hidden of whoever is not trained on
_VIEWS = 2


def two_views(images: Tensor, generator: Generator | None) -> Tensor:
    """Return two changed views of each image, ``(B, 2 C, *spatial)``.

    Args:
        images: ``(B, C, *spatial)`` on any device.
        generator: None changes every image in the same two ways, whoever is in a batch with it.
    """
    # Chen et al. 2020, figure 5: cropping and changed greys together. Noise would depend on the
    # place in a batch.
    preset = AugmentationPreset(
        rotation=15, translation=0.15, zoom=0.3, gamma=0.4, gain=0.3, offset=0.3
    )
    drawn = 1 if generator is None else len(images)
    if generator is None:
        generator = Generator().manual_seed(_MEASURED_WITH)
    views = []
    for _ in range(_VIEWS):
        change = draw_changes(preset, drawn, images.ndim - 2, generator)
        if drawn < len(images):
            same = [part.expand(len(images), *part.shape[1:]) for part in change.tensors.values()]
            change = change.arrived(same)
        views.append(apply_changes(images, None, change)[0])
    return torch.cat(views, dim=1)
