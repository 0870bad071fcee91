"""What training makes small: one number a sample first, their mean after.

The numbers of a batch never depend on each other, so that the gradient of one patient is defined
(clipping patients for privacy needs it) and a small last batch weighs no more than its size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from wardround.client.training.partial_labels import PartialLabels
from wardround.common.errors import StudyError, known_names
from wardround.common.study.study import Study

SampleLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]

_FOCUS = 2.0  # gamma; the best value of Lin et al. 2017, table 1b
_SMOOTH = 1e-5  # keeps the ratio defined where a class is absent from both; MONAI's value


@dataclass(frozen=True, slots=True)
class MeanLoss:
    """A study's loss.

    Attributes:
        of_samples: One of :data:`LOSS_BUILDERS`.
        class_weights: ``(K,)``, or None.
        partial: Which classes the site tells apart; None for all of them.
    """

    of_samples: SampleLoss
    class_weights: Tensor | None = None
    partial: PartialLabels | None = None

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each sample, ``(B,)`` in float32 whatever the precision of logits.

        Args:
            logits: ``(B, K)`` or ``(B, K, *spatial)``.
            targets: ``(B,)`` or ``(B, *spatial)`` class indices, or ``(B, K)`` 0/1 for multi-label.
        """
        logits, weights = logits.float(), self.class_weights
        if self.partial is not None:
            logits, targets = self.partial.marginal(logits, targets)
            weights = self.partial.weights(weights)
        return self.of_samples(logits, targets, weights)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of the batch, a scalar."""
        return self.per_sample(logits, targets).mean()

    def in_parts(self) -> "LossInParts | None":
        """Return the loss of an image of which the outputs come in parts; None if none can be."""
        known = self.of_samples in _OF_PIXELS or self.of_samples in _OF_VOLUMES
        return LossInParts(self) if known else None


class LossInParts:
    """The loss of one batch of images whose logits are never all in memory.

    It is that of the whole, up to rounding: each loss here is a mean over pixels, or follows from
    sums over them.
    """

    def __init__(self, loss: MeanLoss) -> None:
        self._pixels = _OF_PIXELS.get(loss.of_samples)
        self._volumes = _OF_VOLUMES.get(loss.of_samples)
        self._partial, self._class_weights = loss.partial, loss.class_weights
        if loss.partial is not None:
            self._class_weights = loss.partial.weights(loss.class_weights)
        self._total: Tensor | None = None
        self._sums: Tensor | None = None
        self._count = 0

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Take in a part: logits ``(B, K, *part)`` float32 and class indices ``(B, *part)``."""
        if self._partial is not None:
            logits, targets = self._partial.marginal(logits, targets)
        count = targets[0].numel()
        self._count += count
        if self._pixels is not None:
            total = self._pixels(logits, targets, self._class_weights).double() * count
            self._total = total if self._total is None else self._total + total
        if self._volumes is not None:
            sums = torch.stack([*_overlap(logits, targets), _volumes(logits, targets)]).double()
            self._sums = sums if self._sums is None else self._sums + sums

    def mean(self) -> Tensor:
        """Return the mean loss of the batch, a scalar in float32."""
        parts = []
        if self._total is not None:
            parts.append(self._total / self._count)
        if self._sums is not None and self._volumes is not None:
            overlap, total, volume = self._sums.unbind()
            parts.append(self._volumes(overlap, total, volume, self._count))
        return torch.stack(parts).sum(0).mean().float()


def build_loss(
    study: Study,
    class_counts: Tensor | None,
    device: torch.device,
    annotated: tuple[int, ...] | None = None,
) -> MeanLoss:
    """Return the study's loss.

    Args:
        study: Says the loss and its class weights.
        class_counts: ``(K,)`` training examinations (or pixels) of each class; only needed for
            ``class_weights = "balanced"``.
        device: Where logits and targets will be.
        annotated: The classes that the site has annotated; None for all of them.

    Raises:
        StudyError: The loss is unknown, or balanced weights lack the counts.
    """
    if study.loss not in LOSS_BUILDERS:
        raise StudyError(known_names("loss", study.loss, LOSS_BUILDERS))
    weights: Tensor | None = None
    chosen = study.training.class_weights
    if chosen == "balanced":
        if class_counts is None:
            msg = (
                "training.class_weights = 'balanced' needs the number of cases a class, "
                "and this site does not know it: give the weights as numbers."
            )
            raise StudyError(msg)
        weights = balanced_weights(class_counts)
    elif chosen != "none":
        weights = torch.tensor(chosen)
    partial = None
    if annotated is not None:
        partial = PartialLabels(annotated, study.class_count, study.task.dense)
    on_device = None if weights is None else weights.to(device)
    return MeanLoss(LOSS_BUILDERS[study.loss], on_device, partial)


def balanced_weights(class_counts: Tensor) -> Tensor:
    """Return ``n / (K n_c)``, so that every class has the same total weight (King and Zeng 2001).

    K counts the classes that are present and an absent class gets 0: the mean weight of the
    examinations is then 1 at every site, whatever classes it holds.

    Args:
        class_counts: ``(K,)``, at least 0; not all 0.

    Returns:
        ``(K,)`` float32.
    """
    counts = class_counts.to("cpu", torch.float64)
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts)
    return torch.where(present, weights, 0.0).float()


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
    return _over_pixels(F.cross_entropy(logits, targets, weight=class_weights, reduction="none"))


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
    if _is_multi_label(logits, targets):
        negative = F.binary_cross_entropy_with_logits(
            logits, targets.to(logits.dtype), reduction="none"
        )
        return _over_pixels(_weighted(_focused(negative), class_weights))
    negative = F.cross_entropy(logits, targets, reduction="none")
    losses = _focused(negative)
    return _over_pixels(losses if class_weights is None else class_weights[targets] * losses)


def bce(logits: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the binary cross-entropy, the mean over classes and pixels.

    Args:
        logits: ``(B, K)`` or ``(B, K, *spatial)`` float32.
        targets: ``(B,)`` or ``(B, *spatial)`` class indices, or ``(B, K)`` 0/1 for multi-label.
        class_weights: ``(K,)``, or None for 1 each.

    Returns:
        ``(B,)``, each in [0, inf).
    """
    truth = _one_hot(logits, targets)
    losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return _over_pixels(_weighted(losses, class_weights))


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
    return _generalised_dice_of(overlap, total, _one_hot(logits, targets).flatten(2).mean(2))


def mse(logits: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return the Brier score: the squared error of the probabilities, the mean over classes.

    Args:
        logits: ``(B, K)`` or ``(B, K, *spatial)`` float32.
        targets: ``(B,)`` or ``(B, *spatial)`` class indices, or ``(B, K)`` 0/1 for multi-label.
        class_weights: Not used: every class counts alike.

    Returns:
        ``(B,)``, each in [0, 1].
    """
    probabilities = logits.sigmoid() if _is_multi_label(logits, targets) else logits.softmax(1)
    return _over_pixels((probabilities - _one_hot(logits, targets)) ** 2)


def _dice_of(overlap: Tensor, total: Tensor) -> Tensor:
    """Return ``(B,)`` of :func:`_overlap`."""
    return 1 - ((2 * overlap + _SMOOTH) / (total + _SMOOTH))[:, 1:].mean(1)


def _generalised_dice_of(overlap: Tensor, total: Tensor, volume: Tensor) -> Tensor:
    """Return ``(B,)`` of :func:`_overlap` and the classes' volumes, as fractions of the image."""
    smallest = volume.masked_fill(volume == 0, torch.inf).amin(1, keepdim=True)
    weights = torch.where(volume == 0, smallest, volume) ** -2
    above = 2 * (weights * overlap).sum(1) + _SMOOTH
    return 1 - above / ((weights * total).sum(1) + _SMOOTH)


# What a loss is when an image comes in parts: a mean over pixels, something of sums over them, or
# the sum of both.
_OF_PIXELS: dict[SampleLoss, SampleLoss] = {
    cross_entropy: cross_entropy,
    focal: focal,
    bce: bce,
    mse: mse,
    dice_ce: cross_entropy,
}
_OF_VOLUMES: dict[SampleLoss, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    dice: lambda overlap, total, _, __: _dice_of(overlap, total),
    dice_ce: lambda overlap, total, _, __: _dice_of(overlap, total),
    generalised_dice: lambda overlap, total, volume, voxels: _generalised_dice_of(
        overlap / voxels, total / voxels, volume / voxels
    ),
}

LOSS_BUILDERS: dict[str, SampleLoss] = {
    "cross-entropy": cross_entropy,
    "focal": focal,
    "bce": bce,
    "dice": dice,
    "dice-ce": dice_ce,
    "generalised-dice": generalised_dice,
    "mse": mse,
}


def _is_multi_label(logits: Tensor, targets: Tensor) -> bool:
    return targets.ndim == logits.ndim


def _one_hot(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 0/1 targets in the shape of the logits.

    ``F.one_hot`` looks at the values, which ``torch.func.vmap`` does not allow.
    """
    if _is_multi_label(logits, targets):
        return targets.to(logits.dtype)
    classes = torch.arange(logits.shape[1], device=logits.device)
    classes = classes.reshape(-1, *(1 for _ in logits.shape[2:]))
    return (targets.unsqueeze(1) == classes).to(logits.dtype)


def _overlap(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each sample and class ``sum p g`` and ``sum p + sum g``, both ``(B, K)``."""
    probabilities, truth = logits.softmax(1), _one_hot(logits, targets)
    overlap = (probabilities * truth).flatten(2).sum(2)
    return overlap, (probabilities + truth).flatten(2).sum(2)


def _volumes(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the pixels of each sample and class, ``(B, K)``."""
    return _one_hot(logits, targets).flatten(2).sum(2)


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
