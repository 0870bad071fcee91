"""What an attacker makes large: the loss of each examination, with a gradient to its image."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from wardround.client.data.batch import Batch
from wardround.client.tasks.registry import task_of
from wardround.client.tasks.task import AnswersFromOutputs, Box, Forward
from wardround.client.tasks.windows import pad_around
from wardround.client.training.losses.mean_loss import MeanLoss
from wardround.client.training.losses.registry import build_loss
from wardround.common.study.study import Study

_CPU = torch.device("cpu")


def losses_of(forward: Forward, batch: Batch, study: Study) -> Tensor:
    """Return the loss of each of B examinations, ``(B,)``.

    Of a classification the cross-entropy, without the study's class weights: a weight changes no
    direction. Of a segmentation and a detection the study's own loss; where windows slide over
    an image, its mean over the windows, so that each window's answer is attacked.

    Args:
        forward: From inputs to outputs.
        batch: Examinations; its images may carry a graph.
        study: Says the task.
    """
    if study.task.dense:
        loss = build_loss(study, None, _CPU)
        if study.training.patch_size is not None and batch.images is not None:
            return _of_windows(forward, batch, study, loss)
        return loss.per_sample(task_of(study).predict(forward, batch, study), batch.targets)
    task = task_of(study)
    if isinstance(task, AnswersFromOutputs):  # the boxes themselves have no gradient
        loss = build_loss(study, None, _CPU)
        return loss.per_sample(task.outputs(forward, batch, study), batch.targets)
    outputs = task.predict(forward, batch, study)
    if study.data.multi_label:
        each = F.binary_cross_entropy_with_logits(outputs, batch.targets, reduction="none")
        return each.sum(1)
    return F.cross_entropy(outputs, batch.targets, reduction="none")


def _of_windows(forward: Forward, batch: Batch, study: Study, loss: MeanLoss) -> Tensor:
    """Return the mean loss of each image's windows, which lie as they do when it is predicted."""
    from monai.data.utils import dense_patch_slices

    images, patch = batch.images, study.training.patch_size
    if images is None or patch is None:
        msg = "windows need images and a size"
        raise TypeError(msg)
    padded, inside = pad_around(images, list(map(max, images.shape[2:], patch)))
    targets = batch.targets.new_zeros((len(images), *padded.shape[2:]))
    targets[(slice(None), *inside[2:])] = batch.targets
    steps = [
        side if side == size else max(1, int(side * (1 - study.evaluation.overlap)))
        for side, size in zip(patch, padded.shape[2:], strict=True)
    ]
    boxes: list[Box] = dense_patch_slices(padded.shape[2:], patch, steps)
    placed = [(case, box) for case in range(len(images)) for box in boxes]
    total = images.new_zeros(len(images))
    at_once = study.training.batch_size
    for first in range(0, len(placed), at_once):
        some = placed[first : first + at_once]
        seen = [torch.stack([padded[case][(slice(None), *box)] for case, box in some])]
        cases = torch.tensor([case for case, _ in some])
        if batch.covariates is not None:
            seen.append(batch.covariates[cases])
        told = torch.stack([targets[case][tuple(box)] for case, box in some])
        # The pass is made again for its gradient: a volume's windows do not fit in memory at once.
        outputs: Tensor = checkpoint(forward, *seen, use_reentrant=False)
        total = total.index_add(0, cases, loss.per_sample(outputs, told))
    return total / len(boxes)
