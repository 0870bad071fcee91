"""The private local step of a round: patients drawn, clipped one by one, summed, noised."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from wardround.client.data.cohort import Cohort
from wardround.client.privacy.arithmetic import exact_arithmetic
from wardround.client.privacy.gradients.clipped_sum import clipped_gradient_sum
from wardround.client.privacy.gradients.loop import PerSampleLoss
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.privacy.preconditions import checked_loss
from wardround.client.privacy.sampling import ExampleChoice, PatientSampler
from wardround.client.training.local import LocalWork
from wardround.client.training.losses.mean_loss import MeanLoss
from wardround.client.training.objectives.base import LocalStart, Objective
from wardround.client.training.optimisers import mean_weights, set_learning_rate
from wardround.common.models.sharing import trained_parameters
from wardround.common.parameters.schema import Parameters
from wardround.common.privacy.gaussian_mechanism import noised
from wardround.common.privacy.secure_random import Randomness
from wardround.common.runtime.seeds import dropout_seeded
from wardround.common.study.plans.learning_rate import learning_rate_at
from wardround.common.study.plans.patient_privacy import PrivacyPlan

# What the loss of a private step is said to be. It would tell of a few patients with no noise upon
# it, so it is never computed; 0 would look like a measurement.
UNTOLD_LOSS = float("nan")


class ClippingCrew(Protocol):
    """Processes that clip patients together: each its own, and one sum."""

    @property
    def size(self) -> int:
        """How many there are."""

    def clipped_total(
        self,
        batches: Iterable[PatientBatch],
        per_sample_loss: PerSampleLoss,
        clip_norm: float,
        method: str,
        microbatch: int,
    ) -> Parameters:
        """Return the sum of all patients' clipped gradients."""

    def seed(self, seed: int) -> None:
        """Have each process draw its dropout from a seed of its own."""


@dataclass(frozen=True, slots=True)
class StepComputation:
    """How a step is computed; nothing here changes what is promised.

    Attributes:
        method: How clipped gradients are computed: a name of ``client.privacy.gradients``.
        microbatch: Examples in memory at once, unless one patient alone has more.
        copies: Augmented copies of each example, averaged within the patient.
        crew: The processes among whom the patients of a step are divided; None for this one alone.
    """

    method: str
    microbatch: int
    copies: int = 1
    crew: "ClippingCrew | None" = None

    @property
    def read_together(self) -> int:
        """Most examples that are read at once, of all processes."""
        return self.microbatch * (1 if self.crew is None else self.crew.size)


def train_privately(
    start: LocalStart,
    cohort: Cohort,
    plan: PrivacyPlan,
    optimiser: torch.optim.Optimizer,
    computation: StepComputation,
    objective: Objective | None = None,
) -> LocalWork:
    """Train the start's network in place by patient-level DP-SGD (Abadi et al. 2016, algorithm 1).

    There are exactly ``plan.steps`` steps, each on patients drawn by themselves. Whatever follows
    the noise (the objective's corrections, the optimiser) sees nothing else of the patients. All
    randomness is keyed by the operating system: no seed repeats a round, and torch's global
    generators and settings end as they were.

    Args:
        start: Its span has ``plan.steps`` steps, its loss is a :class:`MeanLoss`.
        cohort: The training patients; there may be none.
        optimiser: Of the network's trained parameters.
        objective: The one of the start's plan, or None.

    Returns:
        The steps made, and NaN for the loss, which is not computed.

    Raises:
        RunError: Something in the start would tell of the patients past the noise.
        DataError: The images have different sizes, or one cannot be read.
        OvertimeError: The start's time limit has passed.
    """
    randomness = Randomness()
    mean = mean_weights(start.network, start.training.ema)
    with _drawing(start, cohort, plan, computation, randomness) as draw_sum:
        for done in range(plan.steps):
            _write_gradients(start.network, noised_mean(draw_sum(), plan, randomness))
            _advance(start, optimiser, objective, done)
            if mean is not None:
                mean.take()
    if mean is not None:
        mean.write()
    return LocalWork(plan.steps, UNTOLD_LOSS)


def mean_gradient(
    start: LocalStart, cohort: Cohort, plan: PrivacyPlan, computation: StepComputation
) -> Parameters:
    """Return the clipped gradients of patients drawn once, over ``B``, **without any noise**.

    Of a study whose noise lies in the sum of all sites: who calls this adds the site's share before
    anything is kept or leaves.

    Returns:
        Float64 on the CPU, by the name of each trained parameter.

    Raises:
        RunError: Something in the start would tell of the patients past the noise.
        DataError: The images have different sizes, or one cannot be read.
        OvertimeError: The start's time limit has passed.
    """
    with _drawing(start, cohort, plan, computation, Randomness()) as draw_sum:
        sums = draw_sum()
    return {
        name: part.detach().cpu().double() / plan.expected_patients for name, part in sums.items()
    }


@contextmanager
def _drawing(
    start: LocalStart,
    cohort: Cohort,
    plan: PrivacyPlan,
    computation: StepComputation,
    randomness: Randomness,
) -> Iterator[Callable[[], Parameters]]:
    """Yield what draws patients and returns the sum of their clipped gradients, each time anew."""
    loss = checked_loss(start, plan)
    device = next(start.network.parameters()).device
    choice = ExampleChoice.of(plan, start.training, computation.copies)
    sampler = PatientSampler(cohort, choice, randomness)
    start.network.train()

    def draw_sum() -> Parameters:
        start.limit.check()
        drawn = sampler.draw(plan.sampling_rate)
        batches = start.limit.each(sampler.batches(drawn, computation.read_together, device))
        return _sum(start.network, batches, loss, plan.clip_norm, computation)

    with dropout_seeded(randomness.seed(), device), exact_arithmetic():
        if computation.crew is not None:
            computation.crew.seed(randomness.seed())
        yield draw_sum


def _sum(
    network: nn.Module,
    batches: Iterable[PatientBatch],
    loss: MeanLoss,
    clip_norm: float,
    computation: StepComputation,
) -> Parameters:
    """Return the sum of all patients' clipped gradients; zeros if nobody was drawn."""
    if computation.crew is not None:
        return computation.crew.clipped_total(
            batches, loss.per_sample, clip_norm, computation.method, computation.microbatch
        )
    weights = trained_parameters(network)
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for batch in batches:
        part = clipped_gradient_sum(
            network, batch, loss.per_sample, clip_norm, computation.method, computation.microbatch
        )
        for name, value in part.items():
            total[name].add_(value)
    return total


def _write_gradients(network: nn.Module, gradients: Parameters) -> None:
    for name, weight in trained_parameters(network).items():
        weight.grad = gradients[name].to(weight.dtype)  # a package's may be float64


def _advance(
    start: LocalStart,
    optimiser: torch.optim.Optimizer,
    objective: Objective | None,
    done: int,
) -> None:
    """Make the optimiser's step number ``done``, along gradients that are noised already."""
    rate = learning_rate_at(start.training, start.position.at(done))
    set_learning_rate(optimiser, rate)
    if objective is not None:
        objective.correct()
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def noised_mean(sums: Parameters, plan: PrivacyPlan, randomness: Randomness) -> Parameters:
    """Return ``(sum + N(0, (sigma C)^2)) / B`` (Abadi et al. 2016, algorithm 1).

    ``sigma``, ``C`` and the expected patients ``B`` come from the plan; how many patients were
    drawn is not asked.

    How the noise is drawn and rounded: :mod:`wardround.common.privacy.gaussian_mechanism`.

    Args:
        sums: One sum of clipped contributions a parameter, float32 on any device; not changed.
        plan: Says the noise.
        randomness: Where the noise comes from.

    Returns:
        Float32 on the device of each sum.
    """
    deviation = plan.noise_multiplier * plan.clip_norm

    def mean(total: Tensor) -> Tensor:
        return noised(total, deviation, randomness).div_(plan.expected_patients).float()

    if all(value.device.type == "cpu" for value in sums.values()):
        return {name: mean(value) for name, value in sums.items()}
    # On a GPU as one vector: each parameter would be a copy of its noise and eight small kernels.
    together = mean(torch.cat([value.flatten() for value in sums.values()]))
    parts = torch.split(together, [value.numel() for value in sums.values()])
    return {
        name: part.view(value.shape)
        for (name, value), part in zip(sums.items(), parts, strict=True)
    }
