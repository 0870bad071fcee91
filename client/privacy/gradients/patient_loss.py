"""A patient's loss: the mean of the losses of the patient's examples."""

import torch
from torch import Tensor, nn

from wardround.client.privacy.gradients.loop import PerSampleLoss
from wardround.client.privacy.gradients.owners import Owners
from wardround.client.privacy.gradients.patient_batch import PatientBatch


def patient_losses(
    network: nn.Module, patients: PatientBatch, per_sample_loss: PerSampleLoss
) -> Tensor:
    """Return ``(P,)`` losses."""
    owners = Owners(patients.counts)
    losses = per_sample_loss(network(*patients.examples.inputs), patients.examples.targets)
    counts = torch.tensor(patients.counts, device=losses.device)
    return owners.total(losses / owners.spread(counts))
