"""Detection: a class and a box about every thing of an image; there may be none."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.tasks.anchors import NOTHING, Said, strongest
from wardround.client.tasks.fused_boxes import fuse_boxes, mirrored_back
from wardround.client.tasks.task import Forward, Spacing
from wardround.common.metrics.detection import DetectionSums, count_image
from wardround.common.metrics.noised.encoding import encode_boxes
from wardround.common.models.networks.mirrors import mirrored_axes
from wardround.common.runtime.transfers import fetched
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.batch import Batch

LEAST_SCORE = 0.01  # of a box that is told: below it precision has no say in any metric
MOST_BOXES = 300  # of an image, those of the highest scores
_CANDIDATES = 1000  # boxes of an image that are looked at, before those that repeat another go
_REPEATS = 0.5  # overlap from which on two boxes of a class are of one thing
DECIDED = 0.5  # score from which on a thing is said to be there


class Detection:
    """A class and a box about every thing of an image."""

    labels = None

    def cases_of_classes(self, targets: Tensor, study: Study) -> Tensor:
        """Return ``(K,)`` int64: examinations that hold a box of each class."""
        classes = torch.arange(study.class_count, device=targets.device)
        return (targets[..., :1] == classes).any(1).sum(0)

    def outputs(self, forward: Forward, batch: "Batch", study: Study) -> Tensor:
        """Return what the network says of its anchors, ``(B, A, K + 4 dims)``.

        With ``evaluation.tta`` the anchors of each mirrored view follow those of the image itself,
        turned back; the loss is then that of all of them.
        """
        images, *others = batch.inputs
        seen = [
            mirrored_back(forward(images.flip(axes), *others), axes, images.shape[2:])
            for axes in mirrored_views(study)
        ]
        return seen[0] if len(seen) == 1 else torch.cat(seen, dim=1)

    def predict(self, forward: Forward, batch: "Batch", study: Study) -> Tensor:
        """Return the boxes that were found in whole images, as :meth:`answer`."""
        return self.answer(self.outputs(forward, batch, study), study)

    def answer(self, outputs: Tensor, study: Study) -> Tensor:
        """Return the boxes that were found, ``(B, P, 2 + 2 dims)`` by falling score.

        Each row is score, class, lo.., hi..; padding has the score 0 and the class -1. A box that
        overlaps another one of its class by more than half, and has a lower score, is left out;
        what several views show is fused (:func:`fuse_boxes`).

        It lies on the CPU, wherever the outputs do: boxes are picked by their values, image by
        image, and a GPU would be waited for at each.

        Args:
            outputs: ``(B, A, K + 4 dims)``; what is no number is taken for 0.
            study: Says the size of the image, where boxes are cut off.
        """
        views, told = len(mirrored_views(study)), outputs.cpu()
        found = [
            fuse_boxes([_found(view, study) for view in said.chunk(views)], MOST_BOXES)
            for said in told.nan_to_num(posinf=0.0, neginf=0.0)
        ]
        most = max((len(rows) for rows in found), default=0)
        answer = told.new_zeros(len(outputs), max(1, most), 2 + 2 * study.data.dimensions)
        answer[..., 1] = NOTHING
        for place, rows in enumerate(found):
            answer[place, : len(rows)] = rows
        return answer

    def decide(self, outputs: Tensor, study: Study) -> Tensor:
        """Return the boxes of a score of one half on, ``(B, P, 1 + 2 dims)``."""
        boxes = outputs[..., 1:].clone()
        boxes[outputs[..., 0] < DECIDED] = 0.0
        boxes[..., 0][outputs[..., 0] < DECIDED] = NOTHING
        return boxes

    def bounded(self, outputs: Tensor, targets: Tensor, study: Study) -> NDArray[np.float64]:
        """Return how each image's boxes were found, ``(B, D - 2)``, each row of norm at most 1."""
        found, truth = outputs.double().cpu().numpy(), targets.double().cpu().numpy()
        return encode_boxes(list(found), list(truth), study)

    def counter(self, study: Study, surfaces: bool) -> "DetectionCounter":
        """Return a counter of a new evaluation; there are no surfaces."""
        return DetectionCounter(study)


def mirrored_views(study: Study) -> tuple[tuple[int, ...], ...]:
    """Return the axes, counted from the last, that each view of a test image is mirrored along."""
    if study.evaluation.tta == "none":
        return ((),)
    return mirrored_axes(study.data.dimensions)


def _found(said: Tensor, study: Study) -> Tensor:
    """Return the boxes ``(P, 2 + 2 dims)`` of what was said of one image's anchors."""
    from monai.apps.detection.utils.box_selector import BoxSelector
    from monai.data.box_utils import clip_boxes_to_image

    parts = Said.of(said, study.data.dimensions)
    select = BoxSelector(score_thresh=LEAST_SCORE, topk_candidates_per_level=_CANDIDATES)
    places, scores, classes = select.select_top_score_idx_per_level(parts.logits)
    boxes, inside = clip_boxes_to_image(parts.boxes()[places], study.data.size or ())
    scores, classes = scores[inside], classes[inside]
    kept = strongest(boxes, scores, classes, _REPEATS, MOST_BOXES)
    return torch.cat([scores[kept, None], classes[kept, None].to(boxes), boxes[kept]], dim=1)


class DetectionCounter:
    """Keeps each batch's boxes, and counts them at the end.

    True boxes may lie on a GPU, which is waited for once and not at each batch.
    """

    def __init__(self, study: Study) -> None:
        self._sums = DetectionSums.empty(study, surfaces=False)
        self._found: list[Tensor] = []
        self._true: list[Tensor] = []

    def add(self, outputs: Tensor, targets: Tensor, spacings_mm: Sequence[Spacing] | None) -> None:
        """Count a batch: boxes found ``(B, P, 2 + 2 dims)`` and true ``(B, M, 1 + 2 dims)``."""
        self._found.append(outputs.cpu())
        self._true.append(targets)

    def sums(self) -> DetectionSums:
        """Return the counts over all examinations."""
        for boxes, true in zip(self._found, fetched(self._true), strict=True):
            for found, truth in zip(boxes.numpy(), true.numpy(), strict=True):
                count_image(found, truth, self._sums)
        return self._sums
