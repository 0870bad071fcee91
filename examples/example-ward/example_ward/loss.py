"""A loss: one number an example, which depends on no other example."""

from torch import Tensor
from torch.nn import functional as F

SMOOTHING = 0.1


def soft_label(logits: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return cross-entropy with a tenth of each label spread over all classes, (B,).

    Szegedy et al. 2016, section 7. Logits (B, K) or (B, K, *spatial), targets class indices.
    """
    losses = F.cross_entropy(
        logits, targets, weight=class_weights, label_smoothing=SMOOTHING, reduction="none"
    )
    return losses if losses.ndim == 1 else losses.flatten(1).mean(1)
