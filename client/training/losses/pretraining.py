"""Losses of pretraining, which needs no labels."""

import torch
from torch import Tensor
from torch.nn import functional as F

_TEMPERATURE = 0.5  # of NT-Xent; the best of Chen et al. 2020 for small images, appendix B.9


def masked_l1(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the mean absolute error over what was hidden of each image (Xie et al. 2022, eq. 1).

    Args:
        outputs: ``(B, C, *spatial)`` float32: restored images.
        targets: ``(B, C + 1, *spatial)``: the images, and 1 in the last plane where they were
            hidden.
        class_weights: Not used: there are no classes.

    Returns:
        ``(B,)``, each in [0, inf).
    """
    images, hidden = targets[:, :-1], targets[:, -1:]
    errors = ((outputs - images).abs() * hidden).flatten(1).sum(1)
    return errors / (hidden.flatten(1).sum(1).clamp(min=1) * images.shape[1])


def nt_xent(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return how badly two views of an image are told from those of the batch's other images.

    NT-Xent (Chen et al. 2020, SimCLR, equation 1), the mean of an image's two views: the
    cross-entropy of finding the other view among all others, by cosine over a temperature. With
    the Cox loss the only one in which the images of a batch depend on each other.

    Args:
        outputs: ``(B, 2 D)`` float32: the features of one view, then those of the other.
        targets: Not used: which view belongs to which is their place.
        class_weights: Not used: there are no classes.

    Returns:
        ``(B,)``, each in [0, inf); 0 of a batch of one.
    """
    views = F.normalize(torch.cat(outputs.chunk(2, dim=1)), dim=1)
    count = len(outputs)
    alike = views @ views.T / _TEMPERATURE
    alike = alike.masked_fill(
        torch.eye(2 * count, dtype=torch.bool, device=alike.device), -torch.inf
    )
    others = torch.arange(2 * count, device=alike.device).roll(count)
    return F.cross_entropy(alike, others, reduction="none").reshape(2, count).mean(0)
