"""One model on one cohort: what a site measures, as sums that merge across sites."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.evaluation.classification import count_classification
from wardround.client.evaluation.inference import evaluating, predict
from wardround.client.evaluation.segmentation import count_segmentation, most_likely_classes
from wardround.common.errors import RunError
from wardround.common.metrics.sums import MetricSums, empty_sums, merge
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.cohort import Cohort

Loss = Callable[[Tensor, Tensor], Tensor]


def evaluate(
    network: nn.Module,
    cohort: "Cohort",
    study: Study,
    device: torch.device,
    loss: Loss,
    surfaces: bool = False,
) -> MetricSums:
    """Measure a network on every examination of a cohort, at the study's precision.

    Args:
        network: On the device; its mode is the same afterwards.
        cohort: One split of a site's examinations; may be empty.
        study: Says the task, the precision, the bins of scores and the surface tolerance.
        device: Where the batches are brought.
        loss: Mean over a batch, from logits and targets.
        surfaces: Measure HD95 and surface Dice too, which takes far longer than the network.

    Raises:
        RunError: The network's output is no longer a number.
    """
    if len(cohort) == 0:
        return empty_sums(study, surfaces)
    with evaluating(network):
        if study.study.task == "classification":
            return _evaluate_classification(network, cohort, study, device, loss)
        return _evaluate_segmentation(network, cohort, study, device, loss, surfaces)


def _evaluate_classification(
    network: nn.Module, cohort: "Cohort", study: Study, device: torch.device, loss: Loss
) -> MetricSums:
    losses, outputs, truths = [], [], []
    for _, loaded in _batches(cohort, study):
        batch = loaded.to(device)
        logits = predict(network, batch, study)
        losses.append(loss(logits, batch.targets) * len(batch))
        outputs.append(logits)
        truths.append(loaded.targets)
    # Everything stays on the device until here: one transfer, not one a batch.
    logits = torch.cat(outputs).cpu()
    total = float(torch.stack(losses).sum())
    _check_numbers(total, logits)
    counted = count_classification(logits, torch.cat(truths).cpu(), study)
    return MetricSums(len(logits), total, classification=counted)


def _evaluate_segmentation(
    network: nn.Module,
    cohort: "Cohort",
    study: Study,
    device: torch.device,
    loss: Loss,
    surfaces: bool,
) -> MetricSums:
    sums = empty_sums(study, surfaces)
    for indices, loaded in _batches(cohort, study):
        batch = loaded.to(device)
        logits = predict(network, batch, study)
        total = float(loss(logits, batch.targets)) * len(batch)
        _check_numbers(total, logits)
        spacings = [cohort.spacing(index) for index in indices] if surfaces else None
        found = most_likely_classes(logits)
        measured = count_segmentation(found, batch.targets, study, spacings)
        sums = merge(sums, MetricSums(len(batch), total, segmentation=measured))
    return sums


def _batches(cohort: "Cohort", study: Study) -> Iterator[tuple[range, Batch]]:
    """Yield the examinations in order, one at a time where they differ in size or take windows."""
    count = len(cohort)
    one_size = study.data.size is not None or study.data.kind == "table"
    if not one_size or study.training.patch_size is not None:
        for index in range(count):
            yield range(index, index + 1), cohort.case(index)
        return
    size = study.training.batch_size
    for start in range(0, count, size):
        indices = range(start, min(start + size, count))
        yield indices, cohort.batch(torch.tensor(indices))


def _check_numbers(loss: float, logits: Tensor) -> None:
    if math.isfinite(loss) and bool(logits.isfinite().all()):
        return
    msg = (
        f"the network's output is not a number everywhere (loss {loss}): "
        "lower training.learning_rate or set training.gradient_clip."
    )
    raise RunError(msg)
