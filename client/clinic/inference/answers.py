"""What an ensemble answers of a batch at once: classes, numbers, times, or boxes."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wardround.client.clinic.inference.ensemble import Ensemble, check_numbers
from wardround.client.clinic.inference.prediction import (
    Classified,
    Detected,
    Estimated,
    FoundBox,
    Prediction,
)
from wardround.client.clinic.inference.preparing import Prepared
from wardround.client.data.batch import Batch
from wardround.client.data.boxes import boxes_in_own_grid
from wardround.client.tasks.detection import DECIDED, MOST_BOXES
from wardround.client.tasks.fused_boxes import fuse_boxes
from wardround.client.tasks.registry import task_of
from wardround.client.tasks.task import AnswersNumbers
from wardround.client.training.evaluation import answer_of, outputs_of, predict


def classified(ensemble: Ensemble, batch: Batch) -> list[Prediction]:
    """Return each examination's probabilities: the mean over models and views.

    Args:
        batch: On the ensemble's device.

    Raises:
        ModelError: An output is not a number.
    """
    members: list[Tensor] = []
    data = ensemble.study.data
    for network, model, view in ensemble.looks():
        logits = predict(network, view.of(batch), model.study).double().cpu()
        logits = logits / (model.contract.temperature or 1.0)
        if data.multi_label:
            members.append(torch.sigmoid(logits))
        else:
            members.append(torch.softmax(logits, dim=1))
    means, spreads = _mean_and_spread(members)
    entropies = _entropies(means, data.multi_label).tolist()
    calibrated = all(model.contract.temperature is not None for model in ensemble.models)
    return [
        Classified(
            data.classes,
            tuple(row),
            _reported(row, ensemble),
            ensemble.operating_point,
            calibrated,
            entropies[at],
            None if spreads is None else tuple(spreads[at]),
        )
        for at, row in enumerate(means.tolist())
    ]


def estimated(ensemble: Ensemble, batch: Batch) -> list[Prediction]:
    """Return each examination's numbers or times: the mean over models and views.

    Args:
        batch: On the ensemble's device.

    Raises:
        ModelError: An output is not a number.
    """
    members: list[Tensor] = []
    names: tuple[str, ...] = ()
    for network, model, view in ensemble.looks():
        task = task_of(model.study)
        if not isinstance(task, AnswersNumbers):
            msg = f"the task {model.study.study.task!r} answers no numbers"
            raise TypeError(msg)
        outputs = predict(network, view.of(batch), model.study).double().cpu()
        names, values = task.answers(outputs, model.study)
        members.append(values)
    means, spreads = _mean_and_spread(members)
    return [
        Estimated(
            names,
            tuple(row),
            ensemble.study.outcome.unit,
            None if spreads is None else tuple(spreads[at]),
        )
        for at, row in enumerate(means.tolist())
    ]


def detected(ensemble: Ensemble, some: Sequence[Prepared], batch: Batch) -> list[Prediction]:
    """Return the boxes that models and views find in each examination, in the image's own voxels.

    Args:
        some: The examinations of the batch.
        batch: On the ensemble's device.

    Raises:
        ModelError: An output is not a number.
    """
    members: list[Tensor] = []  # (B, P, 2 + 2 dims) each
    for network, model, view in ensemble.looks():
        outputs = outputs_of(network, view.of(batch), model.study)
        check_numbers(outputs)
        turned = view.anchors_back(outputs, model.study.data.size or ())
        members.append(answer_of(turned, model.study).double().cpu())
    together = [fuse_boxes(rows, MOST_BOXES).numpy() for rows in zip(*members, strict=True)]
    return [_framed(ensemble, one, rows) for one, rows in zip(some, together, strict=True)]


def _framed(ensemble: Ensemble, one: Prepared, rows: NDArray[np.float64]) -> Detected:
    if one.grid is None:
        msg = "a detection needs an image"
        raise TypeError(msg)
    classes, dimensions = ensemble.study.data.classes, ensemble.study.data.dimensions
    own = boxes_in_own_grid(rows[rows[:, 1] >= 0], one.grid)
    # A picture's axes are (y, x), and everybody writes x first.
    order = [1, 0] if dimensions == 2 else [0, 1, 2]
    found = tuple(
        FoundBox(
            classes[int(row[1])],
            float(row[0]),
            tuple(row[2 : 2 + dimensions][order].tolist()),
            tuple(row[2 + dimensions :][order].tolist()),
        )
        for row in own
    )
    told = [box.name for box in found if box.score >= DECIDED]
    return Detected(classes, found, DECIDED, tuple(map(told.count, classes)), one.grid.affine)


def _reported(probabilities: Sequence[float], ensemble: Ensemble) -> tuple[str, ...]:
    """Return the classes that are reported: those above the operating point, or the likeliest."""
    classes, threshold = ensemble.study.data.classes, ensemble.operating_point
    if threshold is None:
        return (classes[max(range(len(classes)), key=probabilities.__getitem__)],)
    if ensemble.study.data.multi_label:
        pairs = zip(classes, probabilities, strict=True)
        return tuple(name for name, probability in pairs if probability >= threshold)
    return (classes[int(probabilities[1] >= threshold)],)


def _mean_and_spread(members: list[Tensor]) -> tuple[Tensor, list[list[float]] | None]:
    """Return the mean ``(B, K)`` of members, and their standard deviation; None of a single one.

    Raises:
        ModelError: The mean is not a number everywhere.
    """
    together = torch.stack(members)
    means = together.mean(0)
    check_numbers(means)
    if len(members) == 1:
        return means, None
    spreads: list[list[float]] = together.std(0, correction=0).tolist()
    return means, spreads


def _entropies(probabilities: Tensor, multi_label: bool) -> Tensor:
    """Return ``(B,)``: 0 where one class is certain, 1 where all are as likely."""
    if multi_label:
        both = torch.stack([probabilities, 1 - probabilities])
        ratio: Tensor = torch.special.entr(both).sum(0).mean(1) / math.log(2)
        return ratio
    entropy: Tensor = torch.special.entr(probabilities).sum(1) / math.log(probabilities.shape[1])
    return entropy
