"""What a detector says of its anchors: read, made into boxes, and held against true boxes.

A box is ``lo.., hi..`` in voxels, hi exclusive, its axes in the order of the image's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from monai.apps.detection.utils.ATSS_matcher import ATSSMatcher

NOTHING = -1  # the box of an anchor that holds none, and the class of a row that is padding
_LARGEST_STRETCH = 4.135  # log(1000 / 16): no box is longer, whatever a network says
_MISFITS = 0.05  # share of boxes far from every anchor, above which somebody should know
_LEAST_UNION = np.finfo(np.float32).eps
_CANDIDATES = 9  # nearest anchors of each level that a box chooses from; Zhang et al. 2020, 4.4.1


@dataclass(frozen=True, slots=True)
class Said:
    """A detector's outputs ``(..., A, K + 4 dims)``, in parts.

    Attributes:
        logits: ``(..., A, K)``.
        offsets: ``(..., A, 2 dims)``: from the anchor's centre to the box's, in sides of the
            anchor, and the logarithm of how much longer it is.
        anchors: ``(..., A, 2 dims)`` boxes.
    """

    logits: Tensor
    offsets: Tensor
    anchors: Tensor

    @classmethod
    def of(cls, outputs: Tensor, dimensions: int) -> "Said":
        """Return the parts of outputs ``(..., A, K + 4 dims)``, of images with 2 or 3 axes."""
        sides = 2 * dimensions
        sizes = [outputs.shape[-1] - 2 * sides, sides, sides]
        return cls(*torch.split(outputs, sizes, dim=-1))

    def boxes(self) -> Tensor:
        """Return the boxes ``(..., A, 2 dims)``; they may lie outside the image."""
        low, high = self.anchors.chunk(2, dim=-1)
        shift, stretch = self.offsets.chunk(2, dim=-1)
        centres = (low + high) / 2 + shift * (high - low)
        sides = (high - low) * stretch.clamp(max=_LARGEST_STRETCH).exp()
        return torch.cat([centres - sides / 2, centres + sides / 2], dim=-1)


def misfit_note(boxes: Tensor, sides: Sequence[int]) -> str:
    """Return a sentence where many boxes are far from every anchor in size; "" where they fit.

    Args:
        boxes: ``(N, M, 1 + 2 dims)``; rows of class -1 are padding.
        sides: Of the anchors, one a level, in voxels.
    """
    rows = boxes[boxes[..., 0] >= 0]
    low, high = rows[:, 1:].chunk(2, dim=1)
    lengths = (high - low).clamp(min=1e-6).log().mean(1).exp()
    factors = (lengths[:, None] / torch.tensor(sides, dtype=lengths.dtype)).log2().abs()
    share = float((factors.amin(1) > 1).float().mean()) if len(rows) else 0.0
    if share <= _MISFITS:
        return ""
    return (
        f"{share:.0%} of the boxes are less than half or more than twice as long as any anchor "
        f"({', '.join(map(str, sides))} voxels): set model.anchors or data.size"
    )


def matched(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Return which box each anchor is to find, ``(A,)`` int64; :data:`NOTHING` for none.

    Adaptive training sample selection (Zhang et al. 2020): of the anchors nearest to a box, those
    that overlap it more than the mean of them and one standard deviation. A box that none is left
    for gets the anchor that it overlaps most, so that no thing is learnt as background.

    Args:
        anchors: ``(A, 2 dims)``, level after level; the anchors of a level have one size.
        boxes: ``(M, 2 dims)``, each with a size; M may be 0.
    """
    if not len(boxes):
        return torch.full((len(anchors),), NOTHING, dtype=torch.int64, device=anchors.device)
    sides = anchors[:, anchors.shape[1] // 2] - anchors[:, 0]
    counts = torch.unique_consecutive(sides, return_counts=True)[1].tolist()
    overlaps: Tensor
    found: Tensor
    overlaps, found = _matcher().compute_matches(boxes, anchors, counts, 1)
    for box in range(len(boxes)):
        if not (found == box).any():
            best = overlaps[box].argmax()
            if overlaps[box, best] > 0:
                found[best] = box
    return found


def strongest(boxes: Tensor, scores: Tensor, classes: Tensor, overlap: float, most: int) -> Tensor:
    """Return which boxes are left, ``(P,)`` int64 by falling score, without those that repeat one.

    A box is left out where one of its class with a higher score overlaps it by more than
    ``overlap``: non-maximum suppression. The arithmetic is that of MONAI's, to the last bit; that
    one takes twelve times as long as the network of a photograph, for it checks all boxes anew
    for each that is kept.

    Args:
        boxes: ``(N, 2 dims)`` float32, each with a size.
        scores: ``(N,)``.
        classes: ``(N,)`` int64.
        overlap: IoU in (0, 1).
        most: Of boxes that are kept.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    if not len(order):
        return order
    apart = classes.to(boxes) * (boxes.max() + 1)  # so that boxes of two classes never overlap
    low, high = (boxes + apart[:, None])[order].cpu().numpy().T.reshape(2, -1, len(order))
    volumes = np.multiply.reduce(high - low)
    free, kept = np.ones(len(order), dtype=np.bool_), list[int]()
    for box in range(len(order)):
        if not free[box]:
            continue
        kept.append(box)
        if len(kept) == most:
            break
        sides = np.minimum(high, high[:, box, None]) - np.maximum(low, low[:, box, None])
        common = np.multiply.reduce(sides.clip(min=0))
        union = volumes + volumes[box] - common
        free &= common / (union + _LEAST_UNION) <= overlap
    return order[kept]


@lru_cache(maxsize=1)
def _matcher() -> "ATSSMatcher":
    from monai.apps.detection.utils.ATSS_matcher import ATSSMatcher

    return ATSSMatcher(num_candidates=_CANDIDATES, center_in_gt=True)
