"""A batch of whole patients: the examples of one patient follow each other."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from wardround.client.data.batch import Batch


@dataclass(frozen=True, slots=True)
class PatientBatch:
    """The examples that patients give one step; the patient is what is clipped.

    Attributes:
        examples: ``(M, ...)``, patient after patient.
        counts: The examples of each patient, each at least 1; their sum is M.

    Raises:
        ValueError: The counts do not describe the examples.
    """

    examples: Batch
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if min(self.counts, default=1) < 1 or sum(self.counts) != len(self.examples):
            msg = (
                f"{len(self.counts)} counts that sum to {sum(self.counts)} do not describe "
                f"{len(self.examples)} examples: give each patient its count, at least 1."
            )
            raise ValueError(msg)

    @property
    def patients(self) -> int:
        """Number of patients; 0 for the empty draw."""
        return len(self.counts)

    @property
    def patient_index(self) -> Tensor:
        """``(M,)`` int64: the patient, counted from 0, of each example; on the CPU."""
        counts = torch.tensor(self.counts, dtype=torch.int64)
        return torch.arange(self.patients).repeat_interleave(counts)

    def to(self, device: torch.device) -> "PatientBatch":
        """Return the batch on a device."""
        return PatientBatch(self.examples.to(device), self.counts)

    def slice(self, first: int, last: int) -> "PatientBatch":
        """Return patients ``first`` to ``last - 1``; nothing is copied."""
        begin = sum(self.counts[:first])
        counts = self.counts[first:last]
        return PatientBatch(_rows(self.examples, begin, begin + sum(counts)), counts)

    def pieces(self, microbatch: int) -> Iterator["PatientBatch"]:
        """Yield pieces of whole patients, in order, of at most ``microbatch`` examples each.

        A patient with more examples is a piece alone; a piece is never empty.

        Raises:
            ValueError: ``microbatch`` is below 1.
        """
        if microbatch < 1:
            msg = f"a micro-batch of {microbatch} examples holds nobody: give at least 1."
            raise ValueError(msg)
        first = held = 0
        for patient, count in enumerate(self.counts):
            if held and held + count > microbatch:
                yield self.slice(first, patient)
                first, held = patient, 0
            held += count
        if held:
            yield self.slice(first, self.patients)


def _rows(batch: Batch, begin: int, end: int) -> Batch:
    def part(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[begin:end]

    return Batch(part(batch.images), part(batch.covariates), batch.targets[begin:end])


@dataclass(frozen=True, slots=True)
class PatientIndex:
    """The patients of consecutive examples.

    Attributes:
        counts: The examples of each patient, each at least 1.
    """

    counts: tuple[int, ...]

    @property
    def patients(self) -> int:
        """Number of patients P."""
        return len(self.counts)

    @property
    def examples(self) -> int:
        """Number of examples M."""
        return sum(self.counts)

    @property
    def most(self) -> int:
        """The most examples of a patient."""
        return max(self.counts)

    def index(self, device: torch.device) -> Tensor:
        """Return ``(M,)`` int64: the patient of each example."""
        return _owner_and_place(self.counts, device)[0]

    def total(self, rows: Tensor) -> Tensor:
        """Return ``(P, ...)``, each patient's sum, of ``(M, ...)``."""
        if self.most == 1:
            return rows
        if self._even:
            return rows.reshape(self.patients, self.most, *rows.shape[1:]).sum(1)
        sums = rows.new_zeros(self.patients, *rows.shape[1:])
        return sums.index_add_(0, self.index(rows.device), rows)

    def stacked(self, rows: Tensor) -> Tensor:
        """Return ``(P, n, ...)`` of ``(M, ...)``, with zeros for the examples a patient lacks."""
        shape = (self.patients, self.most, *rows.shape[1:])
        if self._even:
            return rows.reshape(shape)
        owner, place = _owner_and_place(self.counts, rows.device)
        padded = rows.new_zeros(shape)
        padded[owner, place] = rows
        return padded

    def spread(self, values: Tensor) -> Tensor:
        """Return ``(M,)`` of ``(P,)``: each example gets its patient's value."""
        return values if self.most == 1 else values[self.index(values.device)]

    @property
    def _even(self) -> bool:
        return min(self.counts) == self.most


@lru_cache(maxsize=4)  # each layer asks, and a GPU would be waited for each time
def _owner_and_place(counts: tuple[int, ...], device: torch.device) -> Tensor:
    """Return ``(2, M)`` int64: the patient of each example, and its place among the patient's."""
    places = [(owner, place) for owner, count in enumerate(counts) for place in range(count)]
    return torch.tensor(places, dtype=torch.int64).reshape(-1, 2).T.contiguous().to(device)


def patient_losses(
    run: Callable[..., Tensor],
    patients: PatientBatch,
    per_sample_loss: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return ``(P,)``: each patient's loss, the mean of the losses of its examples.

    Args:
        run: The network, from the inputs of M examples to their logits.
        per_sample_loss: From logits and targets of M examples to ``(M,)`` losses.
    """
    patient_index = PatientIndex(patients.counts)
    losses = per_sample_loss(run(*patients.examples.inputs), patients.examples.targets)
    if patient_index.most == 1:
        return losses
    counts = torch.tensor(patients.counts, device=losses.device)
    return patient_index.total(losses / patient_index.spread(counts))
