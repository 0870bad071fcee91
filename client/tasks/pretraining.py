"""Pretraining: a network learns what images look like; no label is read.

Masked image modelling (Xie et al. 2022, SimMIM, arXiv 2111.09886): squares or cubes of a regular
grid are hidden at random, each time anew, and the network restores them; only they count.

Contrastive (Chen et al. 2020, SimCLR, arXiv 2002.05709), with ``training.loss = "nt-xent"``: each
image is changed twice at random, and the network tells which two views are of one image.
"""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional as F

from wardround.client.tasks.task import Forward, Label, Spacing
from wardround.common.metrics.noised.encoding import encode_errors
from wardround.common.metrics.pretraining import PretrainingSums
from wardround.common.study.sections.training import MaskingSection
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.batch import Batch

_PATCHES_A_SIDE = 8
_MEASURED_WITH = 20_221_118  # the seed of the parts that are hidden of whoever is not trained on
_LEAST_VARIANCE = 1e-8


class NoLabels:
    """There is no column of labels."""

    def read(self, text: str, study: Study) -> Label:
        """Return no number."""
        return ()

    def stack(self, labels: Sequence[Label], study: Study) -> Tensor:
        """Return ``(N, 0)``: the targets are made of the images."""
        return torch.zeros((len(labels), 0))


class Pretraining:
    """The network restores what is hidden of an image, or tells which views are of one image."""

    labels = NoLabels()

    def cases_of_classes(self, targets: Tensor, study: Study) -> None:
        """Return None: examinations have no classes."""

    def hide(self, batch: "Batch", study: Study, generator: Generator | None) -> "Batch":
        """Return images with hidden parts, and targets ``(B, C + 1, *spatial)``.

        What is hidden is filled with the mean of what is not, a plane by itself. The targets are
        the images, and 1 in the last plane where they are hidden.
        """
        images = batch.images
        if images is None:
            msg = "pretraining takes images"
            raise TypeError(msg)
        masking = study.training.masking or MaskingSection()
        hidden = hidden_parts(len(images), images.shape[2:], masking, generator).to(images.device)
        seen = 1 - hidden
        axes = tuple(range(2, images.ndim))
        counted = seen.sum(axes, keepdim=True).clamp(min=1)
        filling = (images * seen).sum(axes, keepdim=True) / counted
        shown = torch.where(hidden > 0, filling, images)
        return type(batch)(shown, batch.covariates, torch.cat([images, hidden], dim=1))

    def predict(self, forward: Forward, batch: "Batch", study: Study) -> Tensor:
        """Return restored images ``(B, C, *spatial)``, or features of two views ``(B, 2 D)``."""
        return forward(*batch.inputs)

    def decide(self, outputs: Tensor, study: Study) -> Tensor:
        """Return what was predicted, in its shape."""
        return outputs

    def bounded(self, outputs: Tensor, targets: Tensor, study: Study) -> NDArray[np.float64]:
        """Return ``(B, 2)``: the share that is not restored, and what it lacks of 1."""
        return encode_errors(unrestored(outputs, targets).double().cpu().numpy())

    def counter(self, study: Study, surfaces: bool) -> "PretrainingCounter | ViewCounter":
        """Return a counter of a new evaluation; there are no surfaces."""
        return ViewCounter() if study.contrasts else PretrainingCounter()


class PretrainingCounter:
    """Adds up the shares that are not restored."""

    def __init__(self) -> None:
        self._shares: list[Tensor] = []

    def add(self, outputs: Tensor, targets: Tensor, spacings_mm: Sequence[Spacing] | None) -> None:
        """Count a batch of restored images ``(B, C, *spatial)``."""
        self._shares.append(unrestored(outputs, targets))

    def sums(self) -> PretrainingSums:
        """Return the sums over all examinations."""
        return _sums(torch.cat(self._shares))


class ViewCounter:
    """Keeps the features of all views, and says at the end how well they are told apart."""

    def __init__(self) -> None:
        self._features: list[Tensor] = []

    def add(self, outputs: Tensor, targets: Tensor, spacings_mm: Sequence[Spacing] | None) -> None:
        """Count a batch of the features of two views, ``(B, 2 D)``."""
        self._features.append(outputs)

    def sums(self) -> PretrainingSums:
        """Return the sums over all examinations."""
        return _sums(confused(torch.cat(self._features)))


def _sums(shares: Tensor) -> PretrainingSums:
    found = shares.double().cpu().numpy()
    squares = np.square(found).sum(keepdims=True)
    return PretrainingSums(found.sum(keepdims=True), squares, np.array([float(len(found))]))


def confused(features: Tensor) -> Tensor:
    """Return of each image which share of the others has a second view nearer to its first.

    Near is a large cosine; one that is as near counts half, so that a network to which all images
    are the same has 0.5.

    Args:
        features: ``(N, 2 D)`` float32 of N images, finite.

    Returns:
        ``(N,)`` in [0, 1]; 0 of an image alone.
    """
    first, second = (F.normalize(view, dim=1) for view in features.chunk(2, dim=1))
    alike = first @ second.T
    own = alike.diagonal()[:, None]
    nearer = (alike > own).double() + (alike == own).double() / 2
    return (nearer.sum(1) - 0.5) / max(1, len(features) - 1)


def hidden_parts(
    count: int, size: Sequence[int], masking: MaskingSection, generator: Generator | None
) -> Tensor:
    """Return ``(count, 1, *size)``: 1 where an image is hidden, 0 where it is seen.

    Args:
        count: Of images.
        size: Of each.
        masking: Which share is hidden, in parts of which side.
        generator: None hides the same parts of every image, whoever is in a batch with it.
    """
    side = masking.patch or max(1, min(size) // _PATCHES_A_SIDE)
    grid = [-(-length // side) for length in size]
    cells = prod(grid)
    hidden = min(max(1, round(masking.fraction * cells)), max(1, cells - 1))
    drawn = 1 if generator is None else count
    if generator is None:
        generator = Generator().manual_seed(_MEASURED_WITH)
    places = torch.rand((drawn, cells), generator=generator).argsort(1)
    parts = (places < hidden).float().reshape(drawn, 1, *grid)
    for axis, length in enumerate(size, start=2):
        parts = parts.repeat_interleave(side, dim=axis).narrow(axis, 0, length)
    return parts.expand(count, *parts.shape[1:])


def unrestored(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share of the hidden voxels' variance that is not restored, ``(B,)`` in [0, 1].

    Args:
        outputs: ``(B, C, *spatial)`` float32, need not be finite.
        targets: ``(B, C + 1, *spatial)``: images, and where they were hidden.
    """
    images, hidden = targets[:, :-1].flatten(2), targets[:, -1:].flatten(2)
    counted = hidden.sum(2, keepdim=True).clamp(min=1)
    mean = (images * hidden).sum(2, keepdim=True) / counted
    error = ((outputs.flatten(2) - images).square() * hidden).sum(2) / counted[..., 0]
    variance = ((images - mean).square() * hidden).sum(2) / counted[..., 0]
    return (error.sum(1) / variance.sum(1).clamp(min=_LEAST_VARIANCE)).clamp(0, 1)
