"""The loss of a batch from that of its samples, also where images come in parts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wardround.client.training.losses.labels import OF_PIXELS, OF_VOLUMES, SampleLoss, one_hot
from wardround.client.training.losses.partial_labels import PartialLabels


@dataclass(frozen=True, slots=True)
class MeanLoss:
    """A study's loss.

    Attributes:
        of_samples: One of ``registry.LOSS_BUILDERS``.
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
        """Return the loss, logits and targets of the classes that the site tells apart.

        Args:
            logits: ``(B, K, ...)``.
            targets: ``(B, ...)`` class indices.
        """
        if self.partial is None:
            return self, logits, targets
        loss = MeanLoss(
            self.of_samples, self.partial.weights(self.class_weights), ignores=self.ignores
        )
        return loss, *self.partial.marginal(logits, targets)

    def __call__(self, logits: Tensor | tuple[Tensor, ...], targets: Tensor) -> Tensor:
        """Return the mean loss of the batch, a scalar.

        Args:
            logits: Of a network in training with deep supervision those of each level, the finest
                first: each level weighs half as much as the one before it, all together 1
                (Isensee et al. 2021).
            targets: As :meth:`per_sample`.
        """
        if isinstance(logits, Tensor):
            return self.per_sample(logits, targets).mean()
        whole = sum(0.5**level for level in range(len(logits)))
        losses = [
            0.5**level / whole * self.per_sample(said, _as_coarse(targets, said)).mean()
            for level, said in enumerate(logits)
        ]
        return torch.stack(losses).sum()

    def in_parts(self) -> "LossInParts | None":
        """Return the loss of an image of which the outputs come in parts; None if none can be."""
        known = self.of_samples in OF_PIXELS or self.of_samples in OF_VOLUMES
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
        of_pixels = OF_PIXELS.get(loss.of_samples)
        if of_pixels is not None:
            known = targets.clamp(max=logits.shape[1] - 1)
            values = of_pixels(logits, known, loss.class_weights)
            values = values.mean(1) if values.ndim == logits.ndim else values
            pixels = torch.where(kept, values, 0.0).flatten(1).sum(1)
        if loss.of_samples in OF_VOLUMES:
            probabilities = torch.where(kept.unsqueeze(1), logits.softmax(1), 0.0)
            truth = one_hot(logits, targets)  # 0 for every class where it is ignored
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
            of_volumes = OF_VOLUMES[loss.of_samples]
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


def _as_coarse(targets: Tensor, logits: Tensor) -> Tensor:
    """Return masks on the grid of a level's logits: of each of its voxels the first one inside."""
    sizes = zip(targets.shape[1:], logits.shape[2:], strict=True)
    return targets[(slice(None), *(slice(None, None, fine // coarse) for fine, coarse in sizes))]
