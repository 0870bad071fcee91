"""Patients that exist in memory alone, trained on by the site's own private step."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Generator, Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.data.cohort import Cohort
from wardround.client.privacy.gradients.choice import exact_method
from wardround.client.privacy.step import StepComputation, mean_gradient, train_privately
from wardround.client.training.losses.registry import build_loss
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.optimisers import build_optimiser
from wardround.client.training.schedule import SchedulePosition
from wardround.common.models.sharing import layout_of
from wardround.common.parameters.schema import Parameters, read_parameters
from wardround.common.study.plans.patient_privacy import PrivacyPlan
from wardround.common.study.plans.strategy import plan_of
from wardround.common.study.study import Study


@dataclass(frozen=True, slots=True)
class MemoryCohort:
    """What a training step asks of a cohort, over tensors.

    Attributes:
        examples: All examples, one an examination.
        patients: ``(N,)`` int64: which patient each is of, counted from 0.
    """

    examples: Batch
    patients: Tensor

    @property
    def targets(self) -> Tensor:
        """What is to be found in each example: ``(N,)``, ``(N, K)`` or ``(N, *spatial)``."""
        return self.examples.targets

    def __len__(self) -> int:
        return len(self.examples)

    def batch(
        self,
        indices: Tensor,
        generator: Generator | None = None,  # nothing is drawn: no augmentation
        device: torch.device | None = None,
    ) -> Batch:
        """Return the examples of these indices, as they are.

        Args:
            indices: ``(B,)`` int64.
            generator: Not used: nothing is drawn.
            device: Where the batch shall be; None leaves it where it is.
        """

        def rows(part: Tensor | None) -> Tensor | None:
            return None if part is None else part[indices]

        whole = self.examples
        batch = Batch(rows(whole.images), rows(whole.covariates), whole.targets[indices])
        return batch if device is None else batch.to(device)


def train_private_round(
    network: nn.Module, cohort: MemoryCohort, study: Study, plan: PrivacyPlan
) -> None:
    """Train a network in place for ``plan.steps`` steps, as a site of the study would."""
    optimiser = build_optimiser(network, study.training)
    # The private step asks a cohort for ``patients`` and ``batch`` only.
    start, computation = _start(network, cohort, study, plan)
    train_privately(start, cast(Cohort, cohort), plan, optimiser, computation)


def mean_gradient_of(
    network: nn.Module, cohort: MemoryCohort, study: Study, plan: PrivacyPlan
) -> Parameters:
    """Return the clipped mean gradient of patients drawn once, as a site adds it to a sum."""
    start, computation = _start(network, cohort, study, plan)
    return mean_gradient(start, cast(Cohort, cohort), plan, computation)


def _start(
    network: nn.Module, cohort: MemoryCohort, study: Study, plan: PrivacyPlan
) -> tuple[LocalStart, StepComputation]:
    strategy, cpu = plan_of(study), torch.device("cpu")
    start = LocalStart(
        network=network,
        parameters=read_parameters(network),
        auxiliary={},
        memory={},
        plan=strategy,
        layout=layout_of(network, strategy),
        training=study.training,
        position=SchedulePosition.of_round(1, 1, plan.steps),
        loss=build_loss(study, None, cpu),
    )
    method = exact_method(study, network)
    computation = StepComputation(method, microbatch=max(1, len(cohort)))
    return start, computation
