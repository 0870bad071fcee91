"""One model on one cohort: what a site measures, as sums that merge across sites."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.tasks.registry import task_of
from wardround.client.training.schedule import mixed_precision
from wardround.common.errors import RunError
from wardround.common.metrics.sums import MetricSums, empty_sums, has_surfaces
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.cohort import Cohort

Loss = Callable[[Tensor, Tensor], Tensor]


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put the network in evaluation mode without gradients; every module's mode is restored."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def predict(network: nn.Module, batch: Batch, study: Study) -> Tensor:
    """Return the network's outputs for whole examinations, float32, at the study's precision.

    Logits ``(B, K)`` for a classification, ``(B, K, *spatial)`` for a segmentation.

    The batch lies on the network's device; call inside :func:`evaluating`.
    """

    def forward(*inputs: Tensor) -> Tensor:
        return _first_output(network(*inputs)).float()

    with mixed_precision(study.training, batch.targets.device):
        return task_of(study).predict(forward, batch, study)


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
        loss: Mean over a batch, from outputs and targets.
        surfaces: Measure HD95 and surface Dice too, which takes far longer than the network.

    Raises:
        RunError: The network's output is no longer a number.
    """
    if len(cohort) == 0:
        return empty_sums(study, surfaces)
    surfaces = surfaces and has_surfaces(study)
    counter = task_of(study).counter(study, surfaces)
    losses: list[Tensor] = []
    counts: list[int] = []
    finite = torch.ones((), dtype=torch.bool, device=device)
    with evaluating(network):
        for indices, loaded in _batches(cohort, study):
            batch = loaded.to(device)
            outputs = predict(network, batch, study)
            losses.append(loss(outputs, batch.targets))
            counts.append(len(batch))
            finite &= outputs.isfinite().all()
            spacings = [cohort.spacing(index) for index in indices] if surfaces else None
            counter.add(outputs, batch.targets, spacings)
        # Losses stay on the device until here: one transfer, not one a batch.
        means = torch.stack(losses).tolist()
    total = sum(mean * count for mean, count in zip(means, counts, strict=True))
    _check_numbers(total, bool(finite))
    return MetricSums(sum(counts), total, counter.sums())


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


def _check_numbers(loss: float, finite: bool) -> None:
    if math.isfinite(loss) and finite:
        return
    msg = (
        f"the network's output is not a number everywhere (loss {loss}): "
        "lower training.learning_rate or set training.gradient_clip."
    )
    raise RunError(msg)


def _first_output(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the final output of a network with deep supervision, or the only one."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]
