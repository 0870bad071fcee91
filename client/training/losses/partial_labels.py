"""Classes that a site has not annotated: neither background nor anything else, but not known.

In a segmentation such a class's voxels lie in what the site left unmarked. So the site's background
is "the background or one of those", whose probability is the sum of theirs, and the loss is that of
the classes it tells apart (the marginal loss of Shi et al. 2021, "Marginal loss and exclusion loss
for partially supervised multi-organ segmentation", Medical Image Analysis 70:101979, section 3.1).
Where several labels may apply, each is by itself, and those that were not looked for are left out.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from wardround.common.metrics.classification import ClassificationSums
from wardround.common.metrics.task_sums import TaskSums

_NEVER = -1e9  # a logit whose class has probability 0, and whose sums stay finite


@dataclass(frozen=True, slots=True)
class PartialLabels:
    """Which of a study's classes a site tells apart.

    Attributes:
        kept: The classes that it has annotated, in order; of exclusive ones the background first.
        classes: How many the study has.
        is_exclusive: Whether a voxel is of one class; else each label is by itself.
    """

    kept: tuple[int, ...]
    classes: int
    is_exclusive: bool

    @property
    def missing(self) -> tuple[int, ...]:
        """The classes that it has not annotated."""
        return tuple(place for place in range(self.classes) if place not in self.kept)

    def marginal(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and targets of the classes that the site tells apart.

        Args:
            logits: ``(B, K)`` or ``(B, K, *spatial)``.
            targets: ``(B, *spatial)`` class indices (K: ignored), or ``(B, K)`` 0/1.

        Returns:
            The same with fewer classes, of which the first holds those that were not annotated.
        """
        kept = list(self.kept)
        if not self.is_exclusive:
            return logits[:, kept], targets[:, kept]
        merged = torch.cat([self._background(logits), logits[:, kept[1:]]], dim=1)
        places = [self.kept.index(c) if c in self.kept else 0 for c in range(self.classes)]
        places.append(len(kept))  # the index of what nobody annotated
        return merged, torch.tensor(places, device=targets.device)[targets.long()]

    def weights(self, class_weights: Tensor | None) -> Tensor | None:
        """Return the weights ``(K,)`` of the classes that the site tells apart."""
        return None if class_weights is None else class_weights[list(self.kept)]

    def scored(self, outputs: Tensor) -> Tensor:
        """Return logits of all classes by which only those count that the site tells apart.

        Args:
            outputs: ``(B, K, *spatial)``.
        """
        if not self.is_exclusive:
            return outputs
        scored = outputs.clone()
        scored[:, :1] = self._background(outputs)
        scored[:, list(self.missing)] = _NEVER
        return scored

    def scored_sums(self, sums: TaskSums) -> TaskSums:
        """Return sums in which labels that were not looked for are of no examination."""
        if self.is_exclusive or not isinstance(sums, ClassificationSums):
            return sums
        counted = np.isin(np.arange(self.classes), self.kept)
        rows = counted[:, None]
        pairs = sums.ordered_pairs
        return replace(
            sums,
            confusion=sums.confusion * counted[:, None, None],
            positives=sums.positives * rows,
            negatives=sums.negatives * rows,
            ordered_pairs=None if pairs is None else pairs * counted,
        )

    def _background(self, logits: Tensor) -> Tensor:
        """Return ``(B, 1, *spatial)``: the logit of the background or a class not annotated."""
        return logits[:, [0, *self.missing]].logsumexp(dim=1, keepdim=True)
