"""Boxes of several views of an image, or of several models, made one answer."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wardround.client.tasks.anchors import NOTHING, Said
from wardround.common.metrics.detection import overlaps_of

SAME_THING = 0.55  # overlap from which on boxes are of one thing; Solovyev et al. 2021, section 4
_BEFORE = 2  # score and class stand before the corners


def mirrored_back(outputs: Tensor, axes: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return what a detector said of a mirrored image, of the image as it is.

    Args:
        outputs: ``(B, A, K + 4 dims)``.
        axes: Spatial axes that were mirrored, counted from the last: -1, -2, ...
        size: ``(*spatial)`` of the image.
    """
    if not axes:
        return outputs
    dims = len(size)
    parts = Said.of(outputs, dims)
    offsets, low, high = (one.clone() for one in (parts.offsets, *parts.anchors.chunk(2, dim=-1)))
    for axis in axes:
        at = axis % dims
        offsets[..., at] = -offsets[..., at]  # of the centre; a side stays as long
        low[..., at], high[..., at] = size[at] - high[..., at], size[at] - low[..., at]
    return torch.cat([parts.logits, offsets, low, high], dim=-1)


def fuse_boxes(members: Sequence[Tensor], most: int) -> Tensor:
    """Return the boxes that several members found in one image, ``(P, 2 + 2 dims)``.

    Weighted boxes fusion (Solovyev, Wang and Gabruseva 2021, Image and Vision Computing 107,
    equations 1 to 5): boxes of a class that overlap by more than ``SAME_THING`` are of one thing.
    It lies where their mean does, weighted by their scores. Its score is the mean of theirs, times
    the share of the members that found it.

    Args:
        members: Of each ``(P, 2 + 2 dims)``: score, class, lo.., hi..; rows of class -1 pad.
        most: How many are told, those of the highest scores.
    """
    rows = torch.cat([one[one[:, 1] != NOTHING] for one in members])
    if len(members) == 1 or not len(rows):
        return rows[:most]
    ordered = rows[torch.argsort(rows[:, 0], descending=True, stable=True)].double().cpu().numpy()
    things = _Things(ordered.shape[1] - _BEFORE)
    for row in ordered:
        things.add(row)
    fused = torch.from_numpy(things.rows(len(members))).to(rows)
    return fused[torch.argsort(fused[:, 0], descending=True, stable=True)][:most]


class _Things:
    """What was found so far: the sums of the boxes of each thing."""

    def __init__(self, corners: int) -> None:
        self._classes = np.zeros(0)
        self._scores: list[float] = []
        self._counts: list[int] = []
        self._places = np.zeros((0, corners))  # of each thing, the mean weighted by scores

    def add(self, row: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> None:
        """Take a box in: to the thing of its class that it overlaps most, or as a new one."""
        score, kind, corners = float(row[0]), row[1], row[_BEFORE:]
        overlaps = overlaps_of(corners[None], self._places)[0] * (self._classes == kind)
        at = int(overlaps.argmax()) if len(overlaps) else -1
        if at < 0 or overlaps[at] <= SAME_THING:
            self._classes = np.append(self._classes, kind)
            self._scores.append(score)
            self._counts.append(1)
            self._places = np.concatenate([self._places, corners[None]])
            return
        total = self._scores[at] + score
        self._places[at] += (corners - self._places[at]) * (score / total)
        self._scores[at] = total
        self._counts[at] += 1

    def rows(self, members: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
        """Return ``(P, 2 + 2 dims)``; a thing that few members found is told with a low score."""
        counts, totals = np.array(self._counts), np.array(self._scores)
        scores = totals / counts * np.minimum(counts, members) / members
        return np.column_stack([scores, self._classes, self._places])
