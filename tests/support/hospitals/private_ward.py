"""Patients with several examples each, and one private round over them."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.loop import loop_clipped_sum
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.privacy.step import StepComputation, train_privately
from wardround.client.training.losses.labels import cross_entropy
from wardround.client.training.losses.mean_loss import MeanLoss
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.schedule import SchedulePosition
from wardround.common.models.sharing import layout_of, trained_parameters
from wardround.common.parameters.schema import read_parameters
from wardround.common.study.plans.patient_privacy import PrivacyPlan
from wardround.common.study.plans.strategy import plan_from
from wardround.common.study.sections.federation import FederationSection
from wardround.common.study.sections.training import TrainingSection

COMPUTATION = StepComputation("loop", 16)


class Ward:
    """What a step asks of a cohort: whose the examples are, and batches of them."""

    def __init__(self, images: Tensor, targets: Tensor, patients: list[int]) -> None:
        self.images, self.targets = images, targets
        self.patients = torch.tensor(patients, dtype=torch.int64)

    def batch(self, indices: Tensor, generator: torch.Generator, device: torch.device) -> Batch:
        return Batch(self.images[indices], None, self.targets[indices]).to(device)

    def without(self, patient: int) -> "Ward":
        kept = self.patients != patient
        others = self.patients[kept]
        return Ward(
            self.images[kept], self.targets[kept], (others - (others > patient).long()).tolist()
        )


def ward_of(counts: list[int], seed: int = 0, pixels: int = 16) -> Ward:
    generator = torch.Generator().manual_seed(seed)
    patients = [patient for patient, count in enumerate(counts) for _ in range(count)]
    images = torch.randn(len(patients), 1, 4, pixels // 4, generator=generator)
    return Ward(images, torch.randint(2, (len(patients),), generator=generator), patients)


def network_of(pixels: int = 16, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, 8), nn.Tanh(), nn.Linear(8, 2))


def plan_with(**numbers: float) -> PrivacyPlan:
    plan = PrivacyPlan(
        sampling_rate=1.0,
        expected_patients=1,
        clip_norm=1.0,
        noise_multiplier=0.0,
        steps=1,
        rounds=1,
        delta=1e-5,
        examples_per_patient=100,
    )
    return replace(plan, **numbers)


def start_of(
    network: nn.Module, plan: PrivacyPlan, strategy: str, **training: object
) -> LocalStart:
    section = TrainingSection.model_validate({"optimiser": "sgd", "learning_rate": 1.0, **training})
    chosen = plan_from(FederationSection(strategy=strategy))
    return LocalStart(
        network=network,
        parameters=read_parameters(network),
        auxiliary={},
        memory={},
        plan=chosen,
        layout=layout_of(network, chosen),
        training=section,
        position=SchedulePosition.of_round(1, 1, plan.steps),
        loss=MeanLoss(cross_entropy),
    )


def update_of(
    ward: Ward,
    plan: PrivacyPlan,
    network: nn.Module | None = None,
    computation: StepComputation = COMPUTATION,
    **training: object,
) -> Tensor:
    """Return what one private round of gradient descent at rate 1 takes away, as one vector."""
    network = network_of() if network is None else network
    start = start_of(network, plan, "fedavg", **training)
    before = flat(trained_parameters(network))
    optimiser = torch.optim.SGD(trained_parameters(network).values(), lr=1.0)
    train_privately(start, ward, plan, optimiser, computation)
    return before - flat(trained_parameters(network))


def flat(parameters: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.detach().flatten() for value in parameters.values()])


def sum_of(ward: Ward, clip_norm: float = 1.0) -> Tensor:
    counts = tuple(torch.bincount(ward.patients).tolist())
    batch = PatientBatch(Batch(ward.images, None, ward.targets), counts)
    return flat(
        loop_clipped_sum(network_of(), batch, MeanLoss(cross_entropy).per_sample, clip_norm)
    )


class Wide(nn.Module):
    """400 000 numbers of which zero images ask nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, 200_000))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).sum(1, keepdim=True) * self.weight[:, :1].T


def empty_ward(patients: int) -> Ward:
    return Ward(torch.zeros(patients, 1, 4, 4), torch.zeros(patients).long(), list(range(patients)))
