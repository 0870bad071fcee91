"""Clipped gradients by ``torch.func``: the gradient function, vectorised over the patients.

For networks with parameters that belong to no layer of a known kind. Patients with fewer examples
than others are filled up with copies that have the weight 0.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.loop import PerSampleLoss
from wardround.client.privacy.gradients.patient_batch import PatientBatch, PatientIndex
from wardround.client.privacy.gradients.patient_gradients import squared_lengths
from wardround.common.models.sharing import trained_parameters


def vmap_clipped_sum(
    network: nn.Module, piece: PatientBatch, per_sample_loss: PerSampleLoss, clip_norm: float
) -> dict[str, Tensor] | None:
    """Return ``sum_p min(1, C / ||g_p||) g_p``, or None if a patient's gradient is not finite."""
    weights = {name: value.detach() for name, value in trained_parameters(network).items()}
    patient_index = PatientIndex(piece.counts)
    filled, whole = (
        _filled(piece, patient_index),
        PatientIndex((patient_index.most,) * patient_index.patients),
    )

    def loss(
        weights: Mapping[str, Tensor], inputs: tuple[Tensor, ...], targets: Tensor, share: Tensor
    ) -> Tensor:
        losses = per_sample_loss(functional_call(network, dict(weights), inputs), targets)
        return losses @ share.to(losses.dtype)

    gradients = vmap(grad(loss), in_dims=(None, 0, 0, 0), randomness="different")(
        weights,
        tuple(whole.stacked(part) for part in filled.inputs),
        whole.stacked(filled.targets),
        _shares(patient_index, filled.targets.device),
    )
    squared = torch.stack([squared_lengths(part) for part in gradients.values()]).sum(0)
    if not bool(torch.isfinite(squared.float()).all()):
        return None
    coefficients = (clip_norm / squared.sqrt()).clamp_(max=1.0)
    return {
        name: torch.tensordot(coefficients.to(part.dtype), part, 1)
        for name, part in gradients.items()
    }


def _filled(piece: PatientBatch, patient_index: PatientIndex) -> Batch:
    """Return as many examples of each patient: those who lack some repeat their first."""
    device, begin, rows = piece.examples.targets.device, 0, []
    for count in patient_index.counts:
        rows += [*range(begin, begin + count), *(begin for _ in range(patient_index.most - count))]
        begin += count
    index = torch.tensor(rows, device=device)
    examples = piece.examples
    images, covariates = (
        None if part is None else part[index] for part in (examples.images, examples.covariates)
    )
    return Batch(images, covariates, examples.targets[index])


def _shares(patient_index: PatientIndex, device: torch.device) -> Tensor:
    """Return ``(P, n)``: 1 / count for a patient's examples, 0 for what fills up."""
    counts = torch.tensor(patient_index.counts, device=device, dtype=torch.float64)[:, None]
    place = torch.arange(patient_index.most, device=device)
    return torch.where(place < counts, 1.0 / counts, 0.0)
