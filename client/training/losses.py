"""What training makes small: one number a sample first, their mean after.

The numbers of a batch never depend on each other, so that the gradient of one patient is defined
(clipping patients for privacy needs it) and a small last batch weighs no more than its size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from wardround.client.training.box_losses import focal_giou, hard_negative_giou
from wardround.client.training.outcome_losses import OUTCOME_LOSSES, outcome_loss
from wardround.client.training.partial_labels import PartialLabels
from wardround.common.errors import StudyError, known_names
from wardround.common.files.packages.references import reference_of
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
        ignores: Whether pixels of the class index K count for nothing: nobody annotated them.
    """

    of_samples: SampleLoss
    class_weights: Tensor | None = None
    partial: PartialLabels | None = None
    ignores: bool = False

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each sample, ``(B,)`` in float32 whatever the precision of logits.

        Args:
            logits: ``(B, K)`` or ``(B, K, *spatial)``; of a detection what it says of each anchor.
            targets: ``(B,)`` or ``(B, *spatial)`` class indices, ``(B, K)`` 0/1 for multi-label, or
                boxes ``(B, M, 1 + 2 dims)``.
        """
        told, logits, targets = self.told_apart(logits.float(), targets)
        if not told.ignores:
            return told.of_samples(logits, targets, told.class_weights)
        return _KeptSums.of(told, logits, targets).loss(told)

    def told_apart(self, logits: Tensor, targets: Tensor) -> "tuple[MeanLoss, Tensor, Tensor]":
        """Return the loss, logits and targets of the classes that the site tells apart."""
        if self.partial is None:
            return self, logits, targets
        loss = MeanLoss(
            self.of_samples, self.partial.weights(self.class_weights), ignores=self.ignores
        )
        return loss, *self.partial.marginal(logits, targets)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of the batch, a scalar."""
        return self.per_sample(logits, targets).mean()

    def in_parts(self) -> "LossInParts | None":
        """Return the loss of an image of which the outputs come in parts; None if none can be."""
        known = self.of_samples in _OF_PIXELS or self.of_samples in _OF_VOLUMES
        return LossInParts(self) if known else None


@dataclass(frozen=True, slots=True)
class _KeptSums:
    """What a loss follows from, over the pixels that count; each of B images by itself.

    Attributes:
        count: ``(B,)`` pixels that count, as floats.
        pixels: ``(B,)`` sum of their losses; None where the loss is no mean over pixels.
        volumes: ``(3, B, K)``: ``sum p g``, ``sum p + sum g`` and ``sum g``; None where the loss
            does not follow from them.
    """

    count: Tensor
    pixels: Tensor | None
    volumes: Tensor | None

    @classmethod
    def of(cls, loss: MeanLoss, logits: Tensor, targets: Tensor) -> "_KeptSums":
        """Return the sums of images ``(B, K, *spatial)``, or of a part of them."""
        kept = targets < logits.shape[1]  # all of them, where the study ignores nothing
        count = kept.flatten(1).sum(1).to(logits.dtype)
        pixels = volumes = None
        of_pixels = _OF_PIXELS.get(loss.of_samples)
        if of_pixels is not None:
            known = targets.clamp(max=logits.shape[1] - 1)
            values = of_pixels(logits, known, loss.class_weights)
            values = values.mean(1) if values.ndim == logits.ndim else values
            pixels = torch.where(kept, values, 0.0).flatten(1).sum(1)
        if loss.of_samples in _OF_VOLUMES:
            probabilities = torch.where(kept.unsqueeze(1), logits.softmax(1), 0.0)
            truth = _one_hot(logits, targets)  # 0 for every class where it is ignored
            overlap = (probabilities * truth).flatten(2).sum(2)
            total = (probabilities + truth).flatten(2).sum(2)
            volumes = torch.stack([overlap, total, truth.flatten(2).sum(2)])
        return cls(count, pixels, volumes)

    def double(self) -> "_KeptSums":
        """Return the sums in float64, in which many parts can be added."""
        return _KeptSums(
            self.count.double(),
            None if self.pixels is None else self.pixels.double(),
            None if self.volumes is None else self.volumes.double(),
        )

    def plus(self, other: "_KeptSums") -> "_KeptSums":
        """Return the sums over both parts of the same images."""

        def both(one: Tensor | None, two: Tensor | None) -> Tensor | None:
            return one if one is None or two is None else one + two

        return _KeptSums(
            self.count + other.count,
            both(self.pixels, other.pixels),
            both(self.volumes, other.volumes),
        )

    def loss(self, loss: MeanLoss) -> Tensor:
        """Return the loss of each image, ``(B,)``; 0 over pixels where none of them counts."""
        parts, voxels = [], self.count.clamp(min=1)
        if self.pixels is not None:
            parts.append(self.pixels / voxels)
        if self.volumes is not None:
            overlap, total, volume = self.volumes.unbind()
            of_volumes = _OF_VOLUMES[loss.of_samples]
            found = of_volumes(overlap, total, volume, voxels.unsqueeze(1))
            parts.append(torch.where(self.count > 0, found, 0.0))
        return torch.stack(parts).sum(0)


class LossInParts:
    """The loss of one batch of images whose logits are never all in memory.

    It is that of the whole, up to rounding: each loss here is a mean over pixels, or follows from
    sums over them.
    """

    def __init__(self, loss: MeanLoss) -> None:
        self._loss = loss
        self._sums: _KeptSums | None = None

    def add(self, logits: Tensor, targets: Tensor) -> None:
        """Take in a part: logits ``(B, K, *part)`` float32 and class indices ``(B, *part)``."""
        told, logits, targets = self._loss.told_apart(logits, targets)
        sums = _KeptSums.of(told, logits, targets).double()
        self._sums = sums if self._sums is None else self._sums.plus(sums)

    def mean(self) -> Tensor:
        """Return the mean loss of the batch, a scalar in float32."""
        if self._sums is None:
            msg = "no part was taken in"
            raise RuntimeError(msg)
        return self._sums.loss(self._loss).mean().float()


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
    if study.loss not in LOSS_BUILDERS and reference_of(study.loss) is None:
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
    ignores = study.data.ignore_label is not None
    if reference_of(study.loss) is not None:
        from wardround.client.training.registered import registered_loss  # few studies name one

        return MeanLoss(registered_loss(study), on_device, partial, ignores)
    of_samples = LOSS_BUILDERS[study.loss]
    if study.task.outcome:
        of_samples = outcome_loss(study)
    return MeanLoss(of_samples, on_device, partial, ignores)


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
    return _over_pixels(_cross_entropy_of_pixels(logits, targets, class_weights))


def _cross_entropy_of_pixels(
    logits: Tensor, targets: Tensor, class_weights: Tensor | None
) -> Tensor:
    return F.cross_entropy(logits, targets, weight=class_weights, reduction="none")


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


def _focal_of_pixels(logits: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    if _is_multi_label(logits, targets):
        negative = F.binary_cross_entropy_with_logits(
            logits, targets.to(logits.dtype), reduction="none"
        )
        return _weighted(_focused(negative), class_weights)
    negative = F.cross_entropy(logits, targets, reduction="none")
    losses = _focused(negative)
    return losses if class_weights is None else class_weights[targets] * losses


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


def _bce_of_pixels(logits: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    truth = _one_hot(logits, targets)
    losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return _weighted(losses, class_weights)


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
    return _over_pixels(_mse_of_pixels(logits, targets, class_weights))


def _mse_of_pixels(logits: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    probabilities = logits.sigmoid() if _is_multi_label(logits, targets) else logits.softmax(1)
    return (probabilities - _one_hot(logits, targets)) ** 2


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
_OF_PIXELS: dict[SampleLoss, SampleLoss] = {
    cross_entropy: _cross_entropy_of_pixels,
    focal: _focal_of_pixels,
    bce: _bce_of_pixels,
    mse: _mse_of_pixels,
    dice_ce: _cross_entropy_of_pixels,
}
_OF_VOLUMES: dict[SampleLoss, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
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
    "focal-giou": focal_giou,
    "hard-negative-giou": hard_negative_giou,
    **{name: loss for name, loss in OUTCOME_LOSSES.items() if name != "mse"},
    "masked-l1": masked_l1,
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
