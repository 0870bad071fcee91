"""The losses of a detection: what each anchor holds, and where it lies.

Each examination is a loss by itself, divided by its own anchors that hold something: so the
gradient of a patient is defined, and an image without boxes counts as much as any other.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from wardround.client.data.batch import to_device
from wardround.client.tasks.anchors import NOTHING, Said, matched
from wardround.common.runtime.transfers import fetched

_FOCUS = 2.0  # gamma of Lin et al. 2017, table 1b
_OF_FOUND = 0.25  # alpha there
_BOX_WEIGHT = 2.0  # of the overlap beside the classes; Zhang et al. 2020 in their code
_NEGATIVES_EACH = 3  # background anchors a true one; Liu et al. 2016, section 2.2
_FEWEST_NEGATIVES = 16  # in an image with few boxes or none


def focal_giou(outputs: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the focal loss of all anchors plus 2 (1 - GIoU) of those that hold a box.

    Focal loss: Lin et al. 2017, equation 5. GIoU: Rezatofighi et al. 2019.

    Args:
        outputs: ``(B, A, K + 4 dims)`` as a detector says them, float32.
        targets: ``(B, M, 1 + 2 dims)``: class, lo.., hi..; rows of class -1 are padding.
        class_weights: ``(K,)``, or None for 1 each.

    Returns:
        ``(B,)``, each in [0, inf).
    """
    return _each(_focal, outputs, targets, class_weights)


def hard_negative_giou(outputs: Tensor, targets: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the cross-entropy of anchors that hold a box and of the hardest of the others.

    To it 2 (1 - GIoU) is added as in :func:`focal_giou`. For each true anchor the three others
    whose scores are highest count (hard negative mining: Liu et al. 2016, section 2.2).

    Args:
        outputs: ``(B, A, K + 4 dims)`` as a detector says them, float32.
        targets: ``(B, M, 1 + 2 dims)``: class, lo.., hi..; rows of class -1 are padding.
        class_weights: ``(K,)``, or None for 1 each.

    Returns:
        ``(B,)``, each in [0, inf).
    """
    return _each(_hardest, outputs, targets, class_weights)


def _each(
    of_classes: "Callable[[Tensor, Tensor, Tensor, _Held], Tensor]",
    outputs: Tensor,
    targets: Tensor,
    class_weights: Tensor | None,
) -> Tensor:
    dimensions = (targets.shape[-1] - 1) // 2
    if class_weights is not None:
        class_weights = class_weights.to(outputs.device)  # an evaluation's lie on the CPU
    losses = []
    for said, found in zip(outputs, _found(outputs, targets, dimensions), strict=True):
        parts = Said.of(said, dimensions)
        weights = said.new_ones(parts.logits.shape[1]) if class_weights is None else class_weights
        classes = found.rows[:, 0].long()
        truth = torch.zeros_like(parts.logits)
        truth.index_put_((found.anchors, classes), truth.new_ones(()))
        boxes = parts.boxes().index_select(0, found.anchors)
        apart = 1 - generalised_overlaps(boxes, found.rows[:, 1:])
        where = (apart * weights.index_select(0, classes)).sum() / max(1, len(classes))
        losses.append(of_classes(parts.logits, truth, weights, found) + _BOX_WEIGHT * where)
    return torch.stack(losses)


@dataclass(frozen=True, slots=True)
class _Held:
    """Which anchors of an image hold a box, and which do not; on the outputs' device.

    Attributes:
        anchors: ``(P,)`` int64.
        others: ``(A - P,)`` int64.
        rows: ``(P, 1 + 2 dims)``, the box of each.
    """

    anchors: Tensor
    others: Tensor
    rows: Tensor


def _found(outputs: Tensor, targets: Tensor, dimensions: int) -> list[_Held]:
    """Return what is held in each image.

    Boxes are given to anchors by comparing numbers, one after the other: on the CPU, so that a GPU
    is waited for once a batch and not several times a box. Anchors are those of every image.
    """
    with torch.no_grad():
        anchors = Said.of(outputs[0], dimensions).anchors.detach()
        here, true_boxes = fetched([anchors.to(targets.dtype), targets])
        each = list[Tensor]()
        for rows in true_boxes:
            real = rows[rows[:, 0] >= 0]
            holds = matched(here.to(anchors.dtype), real[:, 1:])
            true = holds != NOTHING
            each += [true.nonzero()[:, 0], (~true).nonzero()[:, 0], real[holds[true]]]
        there = [one for one in to_device(each, outputs.device) if one is not None]
    return [_Held(*there[at : at + 3]) for at in range(0, len(there), 3)]


def _focal(logits: Tensor, truth: Tensor, weights: Tensor, held: _Held) -> Tensor:
    """Return the sum over anchors and classes, over the number of anchors that hold a box."""
    negative_log = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    missed = -torch.expm1(-negative_log)
    balance = truth * _OF_FOUND + (1 - truth) * (1 - _OF_FOUND)
    return (balance * missed**_FOCUS * negative_log * weights).sum() / truth.sum().clamp(min=1)


def _hardest(logits: Tensor, truth: Tensor, weights: Tensor, held: _Held) -> Tensor:
    """Return the sum over classes, the mean over the anchors that count."""
    negative_log = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * weights
    each = negative_log.sum(1)
    background = each.index_select(0, held.others)
    wanted = max(_FEWEST_NEGATIVES, _NEGATIVES_EACH * len(held.anchors))
    hardest = background.topk(min(wanted, len(background))).values
    return torch.cat([each.index_select(0, held.anchors), hardest]).mean()


def generalised_overlaps(a: Tensor, b: Tensor) -> Tensor:
    """Return the GIoU ``(N,)`` in (-1, 1] of boxes ``(N, 2 dims)`` with those of the same rows.

    The overlap over the union, less the share of the box about both that neither fills: so that
    boxes apart know where to go (Rezatofighi et al. 2019, algorithm 1).
    """
    low_a, high_a = a.chunk(2, dim=1)
    low_b, high_b = b.chunk(2, dim=1)
    common = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(1)
    union = (high_a - low_a).prod(1) + (high_b - low_b).prod(1) - common
    about = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).prod(1)
    least = torch.finfo(a.dtype).tiny
    return common / union.clamp(min=least) - (about - union) / about.clamp(min=least)
