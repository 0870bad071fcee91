"""What the network sees: a batch of examples of one site."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples stacked on the first axis.

    Attributes:
        images: ``(B, C, *spatial)`` float; None for a table study.
        covariates: ``(B, F)`` float; None where the study has none.
        targets: ``(B,)`` int64 class indices, ``(B, K)`` float 0/1 for multi-label, or
            ``(B, *spatial)`` int64 masks for a segmentation.
    """

    images: Tensor | None
    covariates: Tensor | None
    targets: Tensor

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The network's arguments: images ``(B, C, *spatial)``, covariates ``(B, F)``, or both."""
        return tuple(part for part in (self.images, self.covariates) if part is not None)

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return Batch(
            None if self.images is None else self.images.to(device, non_blocking=True),
            None if self.covariates is None else self.covariates.to(device, non_blocking=True),
            self.targets.to(device, non_blocking=True),
        )
