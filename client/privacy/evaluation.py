"""What is measured on patients who are not trained on, with noise before it leaves.

The model may be any: a server that chooses its weights can make it answer anything about one
patient. So nothing of what it answers is trusted to be small: each patient's vector is made to a
norm of at most 1, and normal noise is added to the sum (the Gaussian mechanism, Dwork and Roth
2014, appendix A).
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.data.cohort import Cohort
from wardround.client.tasks.registry import task_of
from wardround.client.tasks.task import BoundsLabels
from wardround.client.training.evaluation import (
    Loss,
    answer_of,
    evaluating,
    found_on,
    outputs_of,
    scored,
    stored_masks,
)
from wardround.common.metrics.noised.encoding import (
    NORM_BOUND,
    NoisedSums,
    encode_loss,
    length_of,
    scaled,
)
from wardround.common.privacy.gaussian_mechanism import noised
from wardround.common.privacy.secure_random import Randomness
from wardround.common.study.plans.patient_privacy import EvaluationPlan
from wardround.common.study.study import Study

if TYPE_CHECKING:
    from wardround.client.data.preprocessing.case import StoredMask

Vector = NDArray[np.float64]


def measure_privately(
    network: nn.Module,
    cohort: Cohort,
    study: Study,
    device: torch.device,
    loss: Loss,
    plan: EvaluationPlan,
) -> NoisedSums:
    """Measure a network on the patients of a cohort, once.

    Every call is another draw of the noise: who calls this pays for it first, and keeps what it
    returns. An empty cohort has noise too, so that it does not show.

    Args:
        network: On the device; its mode is the same afterwards.
        loss: Of a batch, from outputs and targets; the same whoever the patients are.
        plan: Says the noise.

    Raises:
        DataError: An image cannot be read.
    """
    total = np.zeros(length_of(study))
    with evaluating(network):
        for vector in patient_vectors(network, cohort, study, device, loss):
            total += vector
    return NoisedSums(with_noise(total, plan), plan.noise_multiplier)


def with_noise(total: Vector, plan: EvaluationPlan) -> Vector:
    """Return a sum of patients' vectors plus noise from the operating system, on a public grid."""
    vector = noised(torch.from_numpy(total), plan.noise_multiplier, Randomness())
    found: Vector = vector.numpy()
    return found


def patient_vectors(
    network: nn.Module, cohort: Cohort, study: Study, device: torch.device, loss: Loss
) -> Iterator[Vector]:
    """Yield what each patient adds, ``(D,)`` of norm at most 1; call inside ``evaluating``.

    A patient with many examinations gives their mean. No patient's examinations are in a batch with
    another's: on a crafted network the last digit of a sum could otherwise tell who else is there.
    """
    order = cohort.patients.argsort(stable=True)
    for indices in torch.split(order, torch.bincount(cohort.patients).tolist()):
        batches = _batches(cohort, indices, study, device)
        rows = [_of_examinations(network, *batch, study, loss) for batch in batches]
        mean = np.concatenate(rows).mean(axis=0)
        yield mean / max(NORM_BOUND, float(np.linalg.norm(mean)))


def _batches(
    cohort: Cohort, indices: Tensor, study: Study, device: torch.device
) -> "Iterator[tuple[Batch, Sequence[StoredMask | None]]]":
    """Yield one patient's examinations on a device, each by itself where they differ in size."""
    one_size = study.data.size is not None or study.data.kind == "table"
    size = study.training.batch_size if one_size and study.training.patch_size is None else 1
    for some in torch.split(indices, size):
        yield cohort.batch(some).to(device), stored_masks(cohort, some.tolist(), device)


def _of_examinations(
    network: nn.Module,
    batch: Batch,
    stored: "Sequence[StoredMask | None]",
    study: Study,
    loss: Loss,
) -> Vector:
    """Return ``(B, D)``, each row of norm at most 1."""
    outputs = outputs_of(network, batch, study)
    losses = [
        float(loss(outputs[row : row + 1], batch.targets[row : row + 1]))
        for row in range(len(outputs))
    ]
    told = answer_of(scored(outputs, loss), study)
    measured = task_of(study).bounded(told, batch.targets, study)
    for row, mask in enumerate(stored):
        task = task_of(study)
        if mask is not None and isinstance(task, BoundsLabels):
            found = found_on(mask, batch.targets.shape[1:], told[row : row + 1], study)
            measured[row] = task.bounded_labels(found, mask.labels, study)[0]
    return scaled(np.concatenate([encode_loss(np.array(losses)), measured], axis=1), study)
