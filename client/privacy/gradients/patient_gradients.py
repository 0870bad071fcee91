"""The gradients of one layer, one a patient: kept whole, or as the product that makes their sum.

With how far what is summed of a patient may be from what was measured of her.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_ROUNDING = {torch.float32: 2.0**-24, torch.float64: 2.0**-53}  # of one operation, relative
_DOUBLE = _ROUNDING[torch.float64]


@dataclass(frozen=True, slots=True)
class Roundings:
    """Bounds of rounding errors, which are not small where the terms of a gradient cancel.

    The sum of n products is off by at most ``n u sum |a_t| |g_t|`` (Higham 2002, section 3.1), and
    that sum is at most ``|A| |G|`` over all positions of a patient. A squared ghost norm is a sum
    of ``n^2`` products of such products.

    Attributes:
        squared_norms: ``(P,)`` float64, of the squared ghost norms.
        gradients: ``(P,)`` float64, of a patient's part in the sum: the norm of its error.
    """

    squared_norms: Tensor
    gradients: Tensor

    @classmethod
    def of_sums(cls, terms: int, spread: Tensor, dtype: torch.dtype) -> "Roundings":
        """Return the bounds of sums of products.

        Args:
            terms: Products in a sum, at most.
            spread: ``(P,)`` float64: ``|A| |G|`` of each patient.
            dtype: In which the gradients are summed; their norms are in float64.
        """
        # Two more operations: a product is made, and multiplied with the patient's coefficient.
        unit = (terms + 2) * _ROUNDING.get(dtype, 1.0)
        return cls((terms + 2) ** 2 * _DOUBLE * spread.square(), unit * spread)

    @classmethod
    def none(cls, like: Tensor) -> "Roundings":
        """Return zeros for ``(P, ...)``: the very numbers that are measured are summed."""
        zeros = like.new_zeros(len(like), dtype=torch.float64)
        return cls(zeros, zeros)

    def reach(self, squared: Tensor) -> Tensor:
        """Return ``(P,)``: by how much a patient's part may be longer than its measured norm.

        Args:
            squared: ``(P,)`` float64, the squared norms as they were measured.
        """
        return self.gradients + (squared + self.squared_norms).sqrt() - squared.sqrt()

    @classmethod
    def together(cls, parts: list["Roundings"]) -> "Roundings":
        """Return the bounds of a gradient that is made of the parts of several layers."""
        squared = torch.stack([part.squared_norms for part in parts]).sum(0)
        gradients = torch.stack([part.gradients for part in parts])
        return cls(squared, torch.linalg.vector_norm(gradients, dim=0))


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
