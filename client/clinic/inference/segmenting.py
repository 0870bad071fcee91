"""What an ensemble answers of a dense task: a class for each of an image's own voxels, in parts."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from wardround.client.clinic.inference.ensemble import Ensemble, check_numbers
from wardround.client.clinic.inference.prediction import Segmented
from wardround.client.clinic.inference.preparing import Prepared
from wardround.client.data.batch import Batch
from wardround.client.data.preprocessing.own_grid import OwnGrid, labels_in_own_grid
from wardround.client.tasks.registry import task_of
from wardround.client.tasks.segmentation import most_likely_classes
from wardround.client.tasks.task import PredictsInParts
from wardround.client.training.evaluation import forward_of
from wardround.common.study.study import Study

_CPU = torch.device("cpu")
# Where in (1, K, *spatial) a part of the logits lies, and the part.
_Parts: TypeAlias = Iterator[tuple[tuple[slice, ...], Tensor]]


def segmented(ensemble: Ensemble, one: Prepared, batch: Batch, uncertainty: bool) -> Segmented:
    """Return the class of each voxel of one examination, in the image's own grid.

    Args:
        batch: The examination, ``(1, C, *spatial)``, on the ensemble's device.
        uncertainty: Whether to say how certain the classes are.

    Raises:
        ModelError: An output is not a number.
    """
    if one.grid is None:
        msg = "a segmentation needs an image"
        raise TypeError(msg)
    try:
        labels, entropy = _labels(_parts(ensemble, batch), one.grid, ensemble.study, uncertainty)
    except torch.OutOfMemoryError:
        if ensemble.device.type == "cpu":
            raise
        torch.cuda.empty_cache()
        # As an evaluation does: the sums are kept in this machine's memory.
        parts = _parts(ensemble, batch.to(_CPU))
        labels, entropy = _labels(parts, one.grid, ensemble.study, uncertainty)
    voxels = np.bincount(labels.ravel(), minlength=ensemble.study.class_count)
    millilitres = one.grid.voxel_ml
    return Segmented(
        ensemble.study.data.classes,
        labels,
        one.grid.affine,
        one.grid.spacing,
        tuple(voxels.tolist()),
        None if millilitres is None else tuple((voxels * millilitres).tolist()),
        entropy,
    )


def _labels(
    parts: _Parts, grid: OwnGrid, study: Study, uncertainty: bool
) -> tuple[Any, float | None]:
    watch = _Watch(uncertainty)
    labels = labels_in_own_grid(watch.watched(parts), grid, most_likely_classes, study.class_count)
    return labels, watch.entropy


def _parts(ensemble: Ensemble, batch: Batch) -> _Parts:
    """Yield logits of one examination in parts, or the logarithms of mean probabilities."""
    if len(ensemble.networks) == 1 and len(ensemble.views) == 1:
        yield from _logits_in_parts(ensemble.networks[0], batch, ensemble.study, ensemble.device)
        return
    total: Tensor | None = None
    for network, model, view in ensemble.looks():
        seen = _probabilities(network, view.of(batch), model.study, ensemble.device)
        turned = view.back(seen)
        total = turned if total is None else total.add_(turned)
    if total is not None:
        yield (slice(None),) * total.ndim, total.log_()


class _Watch:
    """Looks at logits on their way: are they numbers, and how certain are they?"""

    def __init__(self, measures: bool) -> None:
        self._measures = measures
        self._sum, self._count = 0.0, 0

    @property
    def entropy(self) -> float | None:
        return self._sum / self._count if self._count else None

    def watched(self, parts: _Parts) -> _Parts:
        for place, part in parts:
            # A sum that is a number has no NaN in it: one pass, nothing as large as the part.
            check_numbers(part.sum())
            if self._measures:
                found = most_likely_classes(part) > 0
                logs = torch.log_softmax(part, dim=1)
                entropy = -(logs.exp() * logs).sum(1) / np.log(part.shape[1])
                self._sum += float(entropy[found].double().sum())
                self._count += int(found.sum())
            yield place, part


def _logits_in_parts(
    network: nn.Module, batch: Batch, study: Study, device: torch.device
) -> _Parts:
    task, forward = task_of(study), forward_of(network, study, device)
    parts = None
    if isinstance(task, PredictsInParts):
        parts = task.predict_in_parts(forward, batch, study)
    if parts is None:
        logits = task.predict(forward, batch, study)
        parts = iter([((slice(None),) * logits.ndim, logits)])
    yield from parts


def _probabilities(network: nn.Module, batch: Batch, study: Study, device: torch.device) -> Tensor:
    """Return ``(1, K, *spatial)`` of one examination."""
    if batch.images is None:
        msg = "a segmentation needs an image"
        raise TypeError(msg)
    shape = (1, study.class_count, *batch.images.shape[2:])
    total = batch.images.new_empty(shape)
    for place, part in _logits_in_parts(network, batch, study, device):
        total[place] = torch.softmax(part, dim=1)
    return total
