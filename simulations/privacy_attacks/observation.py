"""What a server sees of one training step: as it is, and as patient-level DP-SGD makes it.

Both are gradients by parameter name. The server knows the learning rate, the model before the step
and the public constants, so it can turn a change of the model back into them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.clipped_sum import clipped_gradient_sum
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.privacy.step import noised_mean
from wardround.common.privacy.secure_random import Randomness
from wardround.common.study.plans.patient_privacy import PrivacyPlan

Gradients = dict[str, Tensor]
SampleLosses = Callable[[Tensor, Tensor], Tensor]


def observe_plainly(network: nn.Module, batch: Batch, per_sample: SampleLosses) -> Gradients:
    """Return the mean gradient of a batch: what one step without protection gives away."""
    weights = {n: w for n, w in network.named_parameters() if w.requires_grad}
    loss = per_sample(network(*batch.inputs), batch.targets).mean()
    found = torch.autograd.grad(loss, list(weights.values()))
    return {name: part.detach() for name, part in zip(weights, found, strict=True)}


def observe_protected(
    network: nn.Module,
    patients: PatientBatch,
    per_sample: SampleLosses,
    plan: PrivacyPlan,
    method: str,
    randomness: Randomness,
) -> Gradients:
    """Return the clipped and noised gradient of patients who all take part in a step.

    The site's own functions make it. Nobody is left out by the sampling, and nobody else takes
    part: that favours the attacker.

    Args:
        method: How a patient's gradient is found: a name of ``client.privacy.gradients``.
    """
    total = clipped_gradient_sum(
        network, patients, per_sample, plan.clip_norm, method, max(1, len(patients.examples))
    )
    return noised_mean(total, plan, randomness)
