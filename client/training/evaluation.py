"""One model on one cohort: what a site measures, as sums that merge across sites."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch, to_device
from wardround.client.tasks.registry import task_of
from wardround.client.tasks.task import (
    AnswersFromOutputs,
    Box,
    Counter,
    CountsLabels,
    CountsParts,
    Forward,
    PredictsInParts,
    Spacing,
)
from wardround.client.training.losses.mean_loss import LossInParts, MeanLoss
from wardround.client.training.losses.partial_labels import PartialLabels
from wardround.client.training.schedule import mixed_precision
from wardround.common.errors import RunError
from wardround.common.metrics.sums import MetricSums, empty_sums, has_surfaces
from wardround.common.models.networks.mirrors import mirrored_axes
from wardround.common.runtime.transfers import fetched
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.preprocessing.case import StoredMask
    from wardround.client.training.registered import RegisteredCounts

Loss = Callable[[Tensor, Tensor], Tensor]


class Evaluated(Protocol):
    """What is evaluated: a cohort, or one examination of it."""

    def __len__(self) -> int: ...

    def case(self, index: int, device: torch.device) -> Batch:
        """Return one whole examination as a batch of one."""

    def batch(
        self,
        indices: Tensor,
        generator: torch.Generator | None = None,
        device: torch.device = ...,
    ) -> Batch:
        """Return whole examinations."""

    def spacing(self, index: int) -> Spacing:
        """Return the millimetres a voxel of a prepared examination."""

    def stored_mask(self, index: int) -> "StoredMask | None":
        """Return a mask on the grid where it is scored; None where that is the prepared one."""


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

    Logits ``(B, K)`` for a classification, ``(B, K, *spatial)`` for a segmentation, the boxes that
    were found for a detection.

    The batch lies on the network's device; call inside :func:`evaluating`.
    """
    forward = forward_of(network, study, batch.targets.device)
    return task_of(study).predict(forward, batch, study)


def outputs_of(network: nn.Module, batch: Batch, study: Study) -> Tensor:
    """Return what the loss takes, as :func:`predict`; :func:`answer_of` makes the answer of it.

    Of a detection ``(B, A, K + 4 dims)``, a row an anchor; of any other task what is predicted.
    """
    task = task_of(study)
    if not isinstance(task, AnswersFromOutputs):
        return predict(network, batch, study)
    return task.outputs(forward_of(network, study, batch.targets.device), batch, study)


def answer_of(outputs: Tensor, study: Study) -> Tensor:
    """Return what :func:`predict` returns, of what :func:`outputs_of` returned."""
    task = task_of(study)
    return task.answer(outputs, study) if isinstance(task, AnswersFromOutputs) else outputs


def forward_of(network: nn.Module, study: Study, device: torch.device) -> Forward:
    """Return a function from inputs to final outputs, float32, at the study's precision.

    Args:
        device: Of the network. Inputs that lie elsewhere are brought there, and the outputs back.
    """

    def forward(*inputs: Tensor) -> Tensor:
        home = inputs[0].device
        with mixed_precision(study.training, device):
            outputs = _first_output(network(*(given.to(device) for given in inputs)))
        return outputs.float().to(home)

    if study.evaluation.tta == "none" or study.task.boxes:  # boxes have no mean: Detection.answer
        return forward
    return _mirrored(forward, study.task.dense)


def _mirrored(forward: Forward, dense: bool) -> Forward:
    """Return a function whose outputs are the mean over an image mirrored along its axes.

    Args:
        dense: Whether outputs lie on the grid of the images, so that they are turned back.
    """

    def mean(images: Tensor, *others: Tensor) -> Tensor:
        _, *turned = mirrored_axes(images.ndim - 2)
        total = forward(images, *others)  # the outputs of a view are not kept
        for axes in turned:
            outputs = forward(images.flip(axes), *others)
            total = total + (outputs.flip(axes) if dense else outputs)
        return total / (1 + len(turned))

    return mean


def without_tta(study: Study) -> Study:
    """Return a study whose images are seen once: the validation patients of a round are."""
    if study.evaluation.tta == "none":
        return study
    plain = study.evaluation.model_copy(update={"tta": "none"})
    return study.model_copy(update={"evaluation": plain})


def evaluate(
    network: nn.Module,
    cohort: Evaluated,
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
    return evaluate_with(network, cohort, study, device, loss, (counter, surfaces))


def evaluate_with(
    network: nn.Module,
    cohort: Evaluated,
    study: Study,
    device: torch.device,
    loss: Loss,
    counting: tuple[Counter, bool],
) -> MetricSums:
    """Measure a network as :func:`evaluate` does, by a counter of the caller's.

    Args:
        cohort: Not empty.
        counting: The counter, and whether it measures surfaces.
    """
    counter, surfaces = counting
    losses: list[Tensor] = []
    counts: list[int] = []
    # Boxes are picked, and given to anchors, on the CPU: so their loss is measured there, too.
    is_picked = isinstance(task_of(study), AnswersFromOutputs)
    finite = torch.ones((), dtype=torch.bool, device="cpu" if is_picked else device)
    registered = _registered_counts(study)
    with evaluating(network):
        for indices, batch in _batches(cohort, study, device):
            spacings = [cohort.spacing(index) for index in indices] if surfaces else None
            stored = stored_masks(cohort, indices, device)
            measured = None
            if registered is None:  # a package's metric wants outputs whole
                counting_parts = (counter, spacings, stored)
                measured = _measure_in_parts(network, batch, study, loss, counting_parts)
            if measured is None:
                outputs, targets = outputs_of(network, batch, study), batch.targets
                if is_picked:
                    outputs, targets = fetched([outputs.to(targets.dtype), targets])
                measured = loss(outputs, targets), outputs.isfinite().all()
                told = answer_of(scored(outputs, loss), study)
                if registered is not None:
                    registered.add(told, targets.to(told.device))
                if stored:
                    _add_each(counter, told, batch, study, (spacings, stored))
                else:
                    counter.add(told, targets, spacings)
            losses.append(measured[0])
            finite &= measured[1]
            counts.append(len(batch))
        # Losses stay on the device until here: one transfer, not one a batch.
        *means, is_finite = torch.stack([*losses, finite]).tolist()
    total = sum(mean * count for mean, count in zip(means, counts, strict=True))
    _check_numbers(total, bool(is_finite))
    found, partial = counter.sums(), _partial_of(loss)
    found = found if partial is None else partial.scored_sums(found)
    extra = {} if registered is None else registered.sums()
    return MetricSums(sum(counts), total, found, extra)


def _registered_counts(study: Study) -> "RegisteredCounts | None":
    """Return what counts for metrics of packages, where the study names any."""
    if not study.package_metrics:
        return None
    from wardround.client.training.registered import RegisteredCounts

    return RegisteredCounts(study)


def scored(outputs: Tensor, loss: Loss) -> Tensor:
    """Return outputs ``(B, K, ...)`` by which only the classes count that a site has annotated."""
    partial = _partial_of(loss)
    return outputs if partial is None else partial.scored(outputs)


def _partial_of(loss: Loss) -> PartialLabels | None:
    return loss.partial if isinstance(loss, MeanLoss) else None


def stored_masks(
    cohort: Evaluated, indices: Iterable[int], device: torch.device
) -> "Sequence[StoredMask | None]":
    """Return what predictions of a batch are scored against, on a device.

    None for an image whose own grid is the prepared one; empty where all are so.
    """
    found = [cohort.stored_mask(index) for index in indices]
    if not any(found):
        return ()
    labels = to_device([None if mask is None else mask.labels for mask in found], device)
    return [
        None if mask is None or there is None else replace(mask, labels=there)
        for mask, there in zip(found, labels, strict=True)
    ]


def found_on(
    stored: "StoredMask",
    fitted: Sequence[int],
    parts: Tensor | Iterable[tuple[Box, Tensor]],
    study: Study,
) -> Tensor:
    """Return the classes found, on the grid of a mask as it was stored.

    Args:
        stored: Says the grid.
        fitted: ``(*spatial)`` of the prepared image.
        parts: Logits ``(1, K, *fitted)``, whole or in parts.
    """
    from wardround.client.data.preprocessing.own_grid import grid_of, turned_labels

    decide = partial(task_of(study).decide, study=study)
    return turned_labels(parts, grid_of(stored, fitted), decide, study.class_count)


def _add_each(
    counter: Counter,
    outputs: Tensor,
    batch: Batch,
    study: Study,
    grids: "tuple[Sequence[Spacing] | None, Sequence[StoredMask | None]]",
) -> None:
    """Count each examination of a batch on its image's own grid."""
    spacings_mm, stored = grids
    for case, mask in enumerate(stored):
        one = slice(case, case + 1)
        if mask is not None and isinstance(counter, CountsLabels):
            found = found_on(mask, batch.targets.shape[1:], outputs[one], study)
            spacing = None if spacings_mm is None else mask.spacing_mm
            counter.add_labels(found, mask.labels, spacing)
        else:
            spacing_of_one = None if spacings_mm is None else spacings_mm[one]
            counter.add(outputs[one], batch.targets[one], spacing_of_one)


def _measure_in_parts(
    network: nn.Module,
    batch: Batch,
    study: Study,
    loss: Loss,
    counting: "tuple[Counter, Sequence[Spacing] | None, Sequence[StoredMask | None]]",
) -> tuple[Tensor, Tensor] | None:
    """Measure a batch whose outputs are too large to be kept, where task and loss allow it.

    Where the device has no room even for a part, the sums are kept in this machine's memory.

    Returns:
        The mean loss and whether all outputs are finite, scalars on the network's device; None
        where nothing was done.
    """
    task, counter = task_of(study), counting[0]
    if not isinstance(task, PredictsInParts) or not isinstance(counter, CountsParts):
        return None
    device = batch.targets.device
    for home in (device, torch.device("cpu")):
        seen, part_loss = batch.to(home), loss.in_parts() if isinstance(loss, MeanLoss) else None
        parts = task.predict_in_parts(forward_of(network, study, device), seen, study)
        if parts is None or part_loss is None:
            return None
        finite = torch.ones((), dtype=torch.bool, device=home)
        lossy = _with_loss(parts, seen.targets, part_loss, finite)
        try:
            told = ((place, scored(outputs, loss)) for place, outputs in lossy)
            _count_parts(told, seen.targets, study, (counter, *counting[1:]))
        except torch.OutOfMemoryError:
            if home.type == "cpu":
                raise
            del seen, parts, lossy, told
            torch.cuda.empty_cache()
            continue
        return part_loss.mean().to(device), finite.to(device)
    return None


def _count_parts(
    parts: Iterable[tuple[Box, Tensor]],
    targets: Tensor,
    study: Study,
    counting: "tuple[CountsParts, Sequence[Spacing] | None, Sequence[StoredMask | None]]",
) -> None:
    """Count the parts of one examination's outputs, on its image's own grid if it has one."""
    counter, spacings_mm, stored = counting
    own = stored[0] if stored else None
    if own is not None and isinstance(counter, CountsLabels):
        found = found_on(own, targets.shape[1:], parts, study)
        spacing = None if spacings_mm is None else own.spacing_mm
        counter.add_labels(found, own.labels.to(found.device), spacing)
        return
    counted = counter.in_parts(targets, keeps_classes=spacings_mm is not None)
    for place, outputs in parts:
        counted.add(place, outputs)
    counter.add_parts(counted, spacings_mm)


def _with_loss(
    parts: Iterable[tuple[Box, Tensor]], targets: Tensor, loss: LossInParts, finite: Tensor
) -> Iterator[tuple[Box, Tensor]]:
    """Yield parts of outputs, each taken into the loss and into whether all are finite."""
    for place, outputs in parts:
        cases, _, *spatial = place
        loss.add(outputs, targets[cases, *spatial])
        finite &= outputs.isfinite().all()
        yield place, outputs


def _batches(
    cohort: Evaluated, study: Study, device: torch.device
) -> Iterator[tuple[range, Batch]]:
    """Yield the examinations in order, one at a time where they differ in size or take windows."""
    count = len(cohort)
    one_size = study.data.size is not None or study.data.kind == "table"
    if not one_size or study.training.patch_size is not None:
        for index in range(count):
            yield range(index, index + 1), cohort.case(index, device)
        return
    size = study.training.batch_size
    for start in range(0, count, size):
        indices = range(start, min(start + size, count))
        yield indices, cohort.batch(torch.tensor(indices), device=device)


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
