"""Which patient each example of a batch belongs to, and sums over a patient's examples."""

from dataclasses import dataclass

import torch
from torch import Tensor


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
        counts = torch.tensor(self.counts, device=device)
        return torch.repeat_interleave(counts, output_size=self.examples)

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
        owner = self.index(rows.device)
        first = torch.tensor((0, *self.counts[:-1]), device=rows.device).cumsum(0)
        place = torch.arange(self.examples, device=rows.device) - first[owner]
        padded = rows.new_zeros(shape)
        padded[owner, place] = rows
        return padded

    def spread(self, values: Tensor) -> Tensor:
        """Return ``(M,)`` of ``(P,)``: each example gets its patient's value."""
        return values if self.most == 1 else values[self.index(values.device)]

    @property
    def _even(self) -> bool:
        return min(self.counts) == self.most
