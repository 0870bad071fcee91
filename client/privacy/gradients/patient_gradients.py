"""The gradients of one layer, one a patient: kept whole, or as the product that makes their sum."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wardround.client.privacy.gradients.rounding import Roundings


class PatientGradients(Protocol):
    """The gradients of one layer's parameters, one a patient."""

    def squared_norms(self) -> Tensor:
        """Return ``(P,)`` float64: each patient's squared norm over these parameters."""
        ...

    def roundings(self) -> Roundings:
        """Return how far what is summed may be from what was measured."""
        ...

    def weighted_sum(self, coefficients: Tensor) -> dict[str, Tensor]:
        """Return ``sum_p c_p g_p`` of each parameter, for ``c`` of ``(P,)`` float64."""
        ...


@dataclass(frozen=True, slots=True)
class KeptGradients:
    """Gradients that are held, one a patient.

    Attributes:
        parts: ``(P, *shape)`` of each parameter.
    """

    parts: dict[str, Tensor]

    def squared_norms(self) -> Tensor:
        """Return ``(P,)`` float64."""
        return torch.stack([squared_lengths(part) for part in self.parts.values()]).sum(0)

    def roundings(self) -> Roundings:
        """Return zeros: the very numbers that were measured are summed."""
        return Roundings.none(next(iter(self.parts.values())))

    def weighted_sum(self, coefficients: Tensor) -> dict[str, Tensor]:
        """Return ``sum_p c_p g_p`` of each parameter.

        Args:
            coefficients: ``(P,)`` float64, one a patient.

        Returns:
            Each parameter's name with a tensor of its shape.
        """
        return {
            name: (coefficients.to(part.dtype) @ part.flatten(1)).reshape(part.shape[1:])
            for name, part in self.parts.items()
        }


@dataclass(frozen=True, slots=True)
class DeferredGradients:
    """Gradients of which only the norms are known; their weighted sum is made when it is asked for.

    Attributes:
        norms: ``(P,)`` float64, squared.
        off: How far the norms and the sum may be from what they stand for.
        sum_of: Makes one parameter's ``sum_p c_p g_p``.
    """

    norms: Tensor
    off: Roundings
    sum_of: dict[str, Callable[[Tensor], Tensor]]

    def squared_norms(self) -> Tensor:
        """Return ``(P,)`` float64."""
        return self.norms

    def roundings(self) -> Roundings:
        """Return how far what is summed may be from what was measured."""
        return self.off

    def weighted_sum(self, coefficients: Tensor) -> dict[str, Tensor]:
        """Return ``sum_p c_p g_p`` of each parameter.

        Args:
            coefficients: ``(P,)`` float64, one a patient.

        Returns:
            Each parameter's name with a tensor of its shape.
        """
        return {name: make(coefficients) for name, make in self.sum_of.items()}


def squared_lengths(rows: Tensor) -> Tensor:
    """Return ``(P,)`` float64 of ``(P, ...)``: each row's squared norm.

    In float64: a sum of millions of equal squares in float32 is a thousandth too small.
    """
    lengths: Tensor = torch.linalg.vector_norm(rows.flatten(1), dim=1, dtype=torch.float64)
    return lengths.square_()
