"""What the network sees: a batch of examples of one site, and how it gets to a device."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

_ALIGNMENT_BYTES = 256  # of each tensor within a packed copy, as CUDA's own allocator aligns

_WITHOUT_COPIES = ("cpu", "meta")


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples stacked on the first axis.

    Attributes:
        images: ``(B, C, *spatial)`` float; None for a table study.
        covariates: ``(B, F)`` float; None where the study has none.
        targets: ``(B,)`` int64 class indices, ``(B, K)`` float 0/1 for multi-label,
            ``(B, *spatial)`` int64 masks for a segmentation, or ``(B, M, 1 + 2 dims)`` float boxes
            for a detection.
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
        images, covariates, targets = to_device(
            (self.images, self.covariates, self.targets), device
        )
        return Batch(images, covariates, self.targets if targets is None else targets)

    def widened(self) -> "Batch":
        """Return the batch with masks as int64: they lie in memory, and travel, as bytes."""
        if self.targets.is_floating_point():
            return self
        return Batch(self.images, self.covariates, self.targets.long())


def to_device(tensors: Iterable[Tensor | None], device: torch.device) -> tuple[Tensor | None, ...]:
    """Return tensors on a device, in one copy that this process does not wait for.

    A copy from ordinary memory makes the process wait, and each copy has a fixed price. So all
    tensors are put into one block of page-locked memory, which torch keeps for the next time.

    Args:
        tensors: None stays None; one that lies on a device already does not travel.
        device: For the CPU nothing is copied.
    """
    given = tuple(tensors)
    travelling = [tensor for tensor in given if tensor is not None and tensor.device.type == "cpu"]
    if device.type in _WITHOUT_COPIES or not travelling:
        return tuple(None if tensor is None else tensor.to(device) for tensor in given)
    places, size = _places(travelling)
    packed = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    for tensor, place in zip(travelling, places, strict=True):
        _view(packed, place, tensor).copy_(tensor)
    there = packed.to(device, non_blocking=True)
    arrived = iter(
        [_view(there, place, like) for like, place in zip(travelling, places, strict=True)]
    )
    return tuple(
        next(arrived) if tensor is not None and tensor.device.type == "cpu" else tensor
        for tensor in given
    )


def _places(tensors: Iterable[Tensor]) -> tuple[list[int], int]:
    """Return where each tensor begins in a packed block, and the block's size, in bytes."""
    places, end = list[int](), 0
    for tensor in tensors:
        places.append(end)
        end += math.ceil(tensor.nbytes / _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    return places, end


def _view(packed: Tensor, place: int, like: Tensor) -> Tensor:
    return packed[place : place + like.nbytes].view(like.dtype).view(like.shape)


def mixed(batch: Batch, alpha: float, class_count: int, generator: Generator) -> Batch:
    """Return a batch whose examples, and their labels, are each mixed with another one of it.

    Mixup (Zhang et al. 2018, arXiv 1710.09412). One share a batch is drawn from
    Beta(alpha, alpha), as in the paper's own code.

    Args:
        batch: Of a classification with one class each, on any device.
        alpha: Above 0; the larger, the more even the mixtures.
        class_count: Number of classes, K.
        generator: Of the CPU; the only source of randomness.

    Returns:
        As many examples; their targets are ``(B, K)`` shares of the classes.
    """
    import numpy as np

    order = torch.randperm(len(batch), generator=generator).to(batch.targets.device)
    seed = int(torch.randint(2**31, (), generator=generator))
    share = float(np.random.default_rng(seed).beta(alpha, alpha))

    def blend(given: Tensor) -> Tensor:
        return given.lerp(given[order], 1 - share)

    return Batch(
        None if batch.images is None else blend(batch.images),
        None if batch.covariates is None else blend(batch.covariates),
        blend(one_hot(batch.targets, class_count).float()),
    )
