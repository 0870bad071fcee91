"""Which patients form a step: each is drawn by itself, so a step may hold many, one or nobody."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from wardround.client.data.cohort import Cohort
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.common.privacy.secure_random import Randomness
from wardround.common.study.plans.patient_privacy import PrivacyPlan
from wardround.common.study.sections.training import TrainingSection


@dataclass(frozen=True, slots=True)
class ExampleChoice:
    """What a patient who was drawn gives to a step.

    Attributes:
        examinations: Most of them; a patient with more gives a random choice.
        copies: How often each is given, each time with patches and augmentation of its own (the
            augmentation multiplicity of De et al. 2022). It costs no privacy: the examples of a
            patient are averaged before they are clipped.
        patches: Examples that the cohort makes of each examination.
    """

    examinations: int
    copies: int = 1
    patches: int = 1

    @classmethod
    def of(cls, plan: PrivacyPlan, training: TrainingSection, copies: int = 1) -> "ExampleChoice":
        """Return the choice of a plan, whose cap counts patches where a study has patches."""
        each = training.patches_per_image if training.patch_size is not None else 1
        return cls(max(1, plan.examples_per_patient // each), copies, each)


class PatientSampler:
    """Poisson sampling of a cohort's patients: each with the same probability, on its own.

    The number of patients drawn is random and is told to nobody.
    """

    def __init__(self, cohort: Cohort, choice: ExampleChoice, randomness: Randomness) -> None:
        self._cohort = cohort
        self._choice = choice
        self._randomness = randomness
        order = cohort.patients.argsort(stable=True)
        self._examinations = torch.split(order, torch.bincount(cohort.patients).tolist())

    def draw(self, sampling_rate: float) -> list[Tensor]:
        """Draw the patients of one step.

        Args:
            sampling_rate: The probability of each patient, in (0, 1].

        Returns:
            For each patient drawn ``(examinations,)`` int64: the indices into the cohort of what
            it gives.
        """
        coins = self._randomness.coins(len(self._examinations), sampling_rate)
        return [
            self._given(self._examinations[patient])
            for patient in coins.nonzero().flatten().tolist()
        ]

    def batches(
        self, drawn: list[Tensor], microbatch: int, device: torch.device
    ) -> Iterator[PatientBatch]:
        """Read the patients drawn, a micro-batch at a time; nobody drawn is no batch.

        Args:
            drawn: From :meth:`draw`, ``(examinations,)`` int64 each.
            microbatch: Most examples of a batch, unless one patient alone has more.
            device: Where the batches go.

        Raises:
            DataError: The images have different sizes.
        """
        generator = self._randomness.generator()
        for patients in self._pieces(drawn, microbatch):
            yield self._read(patients, generator, device)

    def _given(self, examinations: Tensor) -> Tensor:
        chosen = self._randomness.choose(len(examinations), self._choice.examinations)
        return examinations[chosen].repeat_interleave(self._choice.copies)

    def _pieces(self, drawn: list[Tensor], microbatch: int) -> Iterator[list[Tensor]]:
        """Yield the patients in turn, as many at a time as have that many examples together."""
        held: list[Tensor] = []
        for indices in drawn:
            examples = (sum(map(len, held)) + len(indices)) * self._choice.patches
            if held and examples > microbatch:
                yield held
                held = []
            held.append(indices)
        if held:
            yield held

    def _read(
        self, patients: list[Tensor], generator: Generator, device: torch.device
    ) -> PatientBatch:
        # One call for all: what it draws for one patient is independent of what it draws for
        # another, so the sum is distributed as if each had a generator of its own.
        examples = self._cohort.batch(torch.cat(patients), generator, device)
        counts = tuple(len(indices) * self._choice.patches for indices in patients)
        return PatientBatch(examples, counts)
