"""The reference of the clipped sum: one backward pass a patient.

Slow and plain. Every faster method is held against it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.privacy.gradients.patient_gradients import squared_lengths
from wardround.common.models.sharing import trained_parameters
from wardround.common.parameters.schema import Parameters

PerSampleLoss = Callable[[Tensor, Tensor], Tensor]


def loop_clipped_sum(
    network: nn.Module, patients: PatientBatch, per_sample_loss: PerSampleLoss, clip_norm: float
) -> Parameters:
    """Return ``sum_p min(1, C / |g_p|) g_p`` (Abadi et al. 2016, algorithm 1).

    ``g_p`` is the gradient of the mean loss of patient p's examples. A patient whose gradient has a
    norm that is no number, or too large for one, counts as zero.

    Args:
        network: Its ``.grad`` and buffers stay as they are.
        patients: On the network's device; nobody makes zeros.
        per_sample_loss: From ``(M, ...)`` logits and targets to ``(M,)`` losses.
        clip_norm: C, above 0.
    """
    weights = trained_parameters(network)
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for patient in range(patients.patients):
        examples = patients.slice(patient, patient + 1).examples
        loss = per_sample_loss(network(*examples.inputs), examples.targets).mean()
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        gradients = {n: g for n, g in zip(weights, found, strict=True) if g is not None}
        _add_clipped(total, gradients, clip_norm)
    return total


@torch.no_grad()
def _add_clipped(total: Parameters, gradients: Parameters, clip_norm: float) -> None:
    squared = torch.stack([squared_lengths(g[None]) for g in gradients.values()]).sum()
    if not torch.isfinite(squared.float()):
        return
    scale = min(1.0, clip_norm / max(float(squared.sqrt()), 1e-30))
    for name, gradient in gradients.items():
        total[name].add_(gradient, alpha=scale)
