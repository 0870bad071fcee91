"""Which patients form a step: each is drawn by itself, so a step may hold many, one or nobody."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from wardround.client.data.batch import Batch
from wardround.client.data.cohort import Cohort
from wardround.client.privacy.patient_batch import PatientBatch
from wardround.client.privacy.randomness import Randomness
from wardround.common.errors import DataError
from wardround.common.privacy_plan import PrivacyPlan
from wardround.common.study_sections import TrainingSection


@dataclass(frozen=True, slots=True)
class ExampleChoice:
    """What a patient who was drawn gives to a step.

    Attributes:
        examinations: Most of them; a patient with more gives a random choice.
        copies: How often each is given, each time with patches and augmentation of its own (the
            augmentation multiplicity of De et al. 2022). It costs no privacy: the examples of a
            patient are averaged before they are clipped.
    """

    examinations: int
    copies: int = 1

    @classmethod
    def of(cls, plan: PrivacyPlan, training: TrainingSection, copies: int = 1) -> "ExampleChoice":
        """Return the choice of a plan, whose cap counts patches where a study has patches."""
        each = training.patches_per_image if training.patch_size is not None else 1
        return cls(max(1, plan.examples_per_patient // each), copies)


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

        Returns:
            For each patient drawn the indices into the cohort, int64, of what it gives.
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
            drawn: From :meth:`draw`.
            microbatch: Most examples of a batch, unless one patient alone has more.
            device: Where the batches go.

        Raises:
            DataError: The images have different sizes.
        """
        held: list[Batch] = []
        for indices in drawn:
            examples = self._examples(indices, device)
            if held and sum(map(len, held)) + len(examples) > microbatch:
                yield _joined(held)
                held = []
            held.append(examples)
        if held:
            yield _joined(held)

    def _given(self, examinations: Tensor) -> Tensor:
        chosen = self._randomness.choose(len(examinations), self._choice.examinations)
        return examinations[chosen].repeat_interleave(self._choice.copies)

    def _examples(self, indices: Tensor, device: torch.device) -> Batch:
        # A generator for each patient: what others look like must not depend on who else is drawn.
        return self._cohort.batch(indices, self._randomness.generator(), device)


def _joined(parts: list[Batch]) -> PatientBatch:
    counts = tuple(len(part) for part in parts)
    images = [part.images for part in parts if part.images is not None]
    if len({image.shape[1:] for image in images}) > 1:
        msg = (
            "images of different sizes cannot form one batch: set training.patch_size or data.size "
            "in the study."
        )
        raise DataError(msg)
    covariates = [part.covariates for part in parts if part.covariates is not None]
    return PatientBatch(
        Batch(
            torch.cat(images) if images else None,
            torch.cat(covariates) if covariates else None,
            torch.cat([part.targets for part in parts]),
        ),
        counts,
    )
