"""A patient's loss: the mean of the losses of the patient's examples."""

import torch
from torch import Tensor, nn

from wardround.client.privacy.gradients.loop import PerSampleLoss
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.privacy.gradients.patient_index import PatientIndex


def patient_losses(
    network: nn.Module, patients: PatientBatch, per_sample_loss: PerSampleLoss
) -> Tensor:
    """Return ``(P,)`` losses."""
    patient_index = PatientIndex(patients.counts)
    losses = per_sample_loss(network(*patients.examples.inputs), patients.examples.targets)
    counts = torch.tensor(patients.counts, device=losses.device)
    return patient_index.total(losses / patient_index.spread(counts))
