"""Losses of labels: classes of images and of voxels, and numbers; one number a sample.

The numbers of a batch never depend on each other, so that the gradient of one patient is defined
(clipping patients for privacy needs it) and a small last batch weighs no more than its size.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

SampleLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]

_FOCUS = 2.0  # gamma; the best value of Lin et al. 2017, table 1b
_SMOOTH = 1e-5  # keeps the ratio defined where a class is absent from both; MONAI's value


def cross_entropy(logits: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the (weighted) cross-entropy of each sample, over pixels the mean.

    Unlike ``torch.nn.CrossEntropyLoss`` the sum of the weights in a batch does not divide it.

    Args:
        logits: ``(B, K)`` or ``(B, K, *spatial)`` float32.
        targets: ``(B,)`` or ``(B, *spatial)`` class indices.
        class_weights: ``(K,)``, or None for 1 each.

    Returns:
        ``(B,)``, each in [0, inf).
    """
    return _over_pixels(_cross_entropy_of_pixels(logits, targets, class_weights))


def smoothed_cross_entropy(
    logits: Tensor, targets: Tensor, class_weights: Tensor | None, smoothing: float
) -> Tensor:
    """Return the cross-entropy of labels with a share of each spread over all classes.

    Args:
        logits: ``(B, K)`` float32.
        targets: ``(B,)`` class indices, or ``(B, K)`` shares.
        class_weights: ``(K,)``, or None for 1 each.
        smoothing: That share (Szegedy et al. 2016, section 7), in [0, 1).

    Returns:
        ``(B,)``, each in [0, inf).
    """
    return F.cross_entropy(
        logits, targets, weight=class_weights, reduction="none", label_smoothing=smoothing
    )


def focal(logits: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return ``-alpha (1 - p)^gamma log p`` with gamma 2 (Lin et al. 2017, eq. 5).

    p is the probability of the true class; for multi-label, of the true answer for each class,
    and the classes are averaged. The class weights are alpha.

    Args:
        logits: ``(B, K)`` or ``(B, K, *spatial)`` float32.
        targets: ``(B,)`` or ``(B, *spatial)`` class indices, or ``(B, K)`` 0/1 for multi-label.
        class_weights: ``(K,)``, or None for 1 each.

    Returns:
        ``(B,)``, each in [0, inf).
    """
    return _over_pixels(_focal_of_pixels(logits, targets, class_weights))


def bce(logits: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the binary cross-entropy, the mean over classes and pixels.

    Args:
        logits: ``(B, K)`` or ``(B, K, *spatial)`` float32.
        targets: ``(B,)`` or ``(B, *spatial)`` class indices, or ``(B, K)`` 0/1 for multi-label.
        class_weights: ``(K,)``, or None for 1 each.

    Returns:
        ``(B,)``, each in [0, inf).
    """
    return _over_pixels(_bce_of_pixels(logits, targets, class_weights))


def dice(logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return 1 minus the soft Dice of each sample, the mean over the foreground classes.

    The denominator is ``sum p + sum g`` (Drozdzal 2016), where Milletari et al. 2016 square both;
    a class that is absent from truth and prediction counts as a perfect 1.

    Args:
        logits: ``(B, K)`` or ``(B, K, *spatial)`` float32.
        targets: ``(B, *spatial)`` class indices.
        class_weights: Not used: every class counts alike.

    Returns:
        ``(B,)``, each in [0, 1].
    """
    overlap, total = _overlap(logits, targets)
    return _dice_of(overlap, total)


def dice_ce(logits: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return Dice plus (weighted) cross-entropy (Isensee et al. 2021).

    Args:
        logits: ``(B, K)`` or ``(B, K, *spatial)`` float32.
        targets: ``(B, *spatial)`` class indices.
        class_weights: ``(K,)`` of the cross-entropy, or None for 1 each.

    Returns:
        ``(B,)``, each in [0, inf).
    """
    return dice(logits, targets) + cross_entropy(logits, targets, class_weights)


def generalised_dice(
    logits: Tensor, targets: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Return the generalised Dice loss of each sample (Sudre et al. 2017, section 2.1).

    Each class, the background included, weighs 1 / volume²; an absent class weighs as much as the
    smallest present one. Volumes are fractions of the image: counted in voxels, the smoothing
    outweighs the classes of a large image.

    Args:
        logits: ``(B, K)`` or ``(B, K, *spatial)`` float32.
        targets: ``(B, *spatial)`` class indices.
        class_weights: Not used: every class counts alike.

    Returns:
        ``(B,)``, each in [0, 1].
    """
    voxels = targets[0].numel()
    overlap, total = (part / voxels for part in _overlap(logits, targets))
    return _generalised_dice_of(overlap, total, one_hot(logits, targets).flatten(2).mean(2))


def mse(logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the Brier score: the squared error of the probabilities, the mean over classes.

    Args:
        logits: ``(B, K)`` or ``(B, K, *spatial)`` float32.
        targets: ``(B,)`` or ``(B, *spatial)`` class indices, or ``(B, K)`` 0/1 for multi-label.
        class_weights: Not used: every class counts alike.

    Returns:
        ``(B,)``, each in [0, 1].
    """
    return _over_pixels(_mse_of_pixels(logits, targets, class_weights))


def _cross_entropy_of_pixels(
    logits: Tensor, targets: Tensor, class_weights: Tensor | None
) -> Tensor:
    return F.cross_entropy(logits, targets, weight=class_weights, reduction="none")


def _focal_of_pixels(logits: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    if _is_multi_label(logits, targets):
        negative = F.binary_cross_entropy_with_logits(
            logits, targets.to(logits.dtype), reduction="none"
        )
        return _weighted(_focused(negative), class_weights)
    negative = F.cross_entropy(logits, targets, reduction="none")
    losses = _focused(negative)
    return losses if class_weights is None else class_weights[targets] * losses


def _bce_of_pixels(logits: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    truth = one_hot(logits, targets)
    losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return _weighted(losses, class_weights)


def _mse_of_pixels(logits: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    probabilities = logits.sigmoid() if _is_multi_label(logits, targets) else logits.softmax(1)
    return (probabilities - one_hot(logits, targets)) ** 2


def _dice_of(overlap: Tensor, total: Tensor) -> Tensor:
    """Return ``(B,)`` of :func:`_overlap`."""
    return 1 - ((2 * overlap + _SMOOTH) / (total + _SMOOTH))[:, 1:].mean(1)


def _generalised_dice_of(overlap: Tensor, total: Tensor, volume: Tensor) -> Tensor:
    """Return ``(B,)`` of :func:`_overlap` and the classes' volumes, as fractions of the image."""
    smallest = volume.masked_fill(volume == 0, torch.inf).amin(1, keepdim=True)
    weights = torch.where(volume == 0, smallest, volume) ** -2
    above = 2 * (weights * overlap).sum(1) + _SMOOTH
    return 1 - above / ((weights * total).sum(1) + _SMOOTH)


# What a loss is where an image comes in parts, or not every pixel counts: the mean of what it is of
# each pixel, something of sums over them, or the sum of both.
OF_PIXELS: dict[SampleLoss, SampleLoss] = {
    cross_entropy: _cross_entropy_of_pixels,
    focal: _focal_of_pixels,
    bce: _bce_of_pixels,
    mse: _mse_of_pixels,
    dice_ce: _cross_entropy_of_pixels,
}


OF_VOLUMES: dict[SampleLoss, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    dice: lambda overlap, total, _, __: _dice_of(overlap, total),
    dice_ce: lambda overlap, total, _, __: _dice_of(overlap, total),
    generalised_dice: lambda overlap, total, volume, voxels: _generalised_dice_of(
        overlap / voxels, total / voxels, volume / voxels
    ),
}


def _is_multi_label(logits: Tensor, targets: Tensor) -> bool:
    return targets.ndim == logits.ndim


def one_hot(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 0/1 targets in the shape of the logits, ``(B, K, ...)``.

    ``F.one_hot`` looks at the values, which ``torch.func.vmap`` does not allow.
    """
    if _is_multi_label(logits, targets):
        return targets.to(logits.dtype)
    classes = torch.arange(logits.shape[1], device=logits.device)
    classes = classes.reshape(-1, *(1 for _ in logits.shape[2:]))
    return (targets.unsqueeze(1) == classes).to(logits.dtype)


def _overlap(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each sample and class ``sum p g`` and ``sum p + sum g``, both ``(B, K)``."""
    probabilities, truth = logits.softmax(1), one_hot(logits, targets)
    overlap = (probabilities * truth).flatten(2).sum(2)
    return overlap, (probabilities + truth).flatten(2).sum(2)


def _focused(negative_log: Tensor) -> Tensor:
    missed = -torch.expm1(-negative_log)  # 1 - p, exact for p near 1 too
    return missed**_FOCUS * negative_log


def _weighted(losses: Tensor, class_weights: Tensor | None) -> Tensor:
    if class_weights is None:
        return losses
    return losses * class_weights.reshape(-1, *(1 for _ in losses.shape[2:]))


def _over_pixels(losses: Tensor) -> Tensor:
    """Return the mean over everything but the batch, ``(B,)``."""
    return losses if losses.ndim == 1 else losses.flatten(1).mean(1)
