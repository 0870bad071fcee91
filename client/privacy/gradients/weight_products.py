"""Gradients of convolution and linear weights, one a patient, from inputs and output gradients.

A weight's gradient is a sum over positions t of ``g_t a_t'``, a product of the output's gradient
and the input's patch. Its squared norm is either that of the gradient, made for each patient, or
the ghost norm ``sum_ts (a_t . a_s) (g_t . g_s)`` (Li et al. 2022, section 4), which is cheap where
positions are few and channels many. Bu et al. 2022 choose between them layer by layer.
"""

from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from wardround.client.privacy.gradients.patient_batch import PatientIndex
from wardround.client.privacy.gradients.patient_gradients import Roundings

# Measured on one core, in multiplications of a convolution: what writing and reading one number of
# a patient's gradient costs while those of all patients fit the cache, and beyond.
_COST_OF_A_NUMBER, _COST_BEYOND_CACHE = 120, 200
_NUMBERS_IN_CACHE = 5_000_000  # 20 MB of float32
# A ghost norm is in float64, because it cancels where a gradient is small beside its terms.
_COST_OF_DOUBLE = 4
_COST_OF_A_SUM = 20  # adding along a diagonal, beside a multiplication of a convolution
_MOST_BYTES = 1 << 26  # 64 MiB: beyond it memory decides, not time


class WeightProduct(Protocol):
    """What makes a weight's gradient, for the examples of some patients."""

    @property
    def patient_index(self) -> PatientIndex:
        """Whose the examples are."""
        ...

    def positions(self) -> int:
        """Return the positions of one example, at which the weight was used."""
        ...

    def weights(self) -> int:
        """Return the number of weights."""
        ...

    def ghost_cost(self) -> float:
        """Return the multiplications of one patient's ghost norm; infinite where there is none."""
        ...

    def ghost_bytes(self) -> int:
        """Return the memory of one patient's ghost norm."""
        ...

    def of_patients(self) -> Tensor:
        """Return ``(P, *shape)``: each patient's gradient."""
        ...

    def ghost_norms(self) -> Tensor:
        """Return ``(P,)`` float64: each patient's squared norm, without its gradient."""
        ...

    def roundings(self) -> Roundings:
        """Return how far norms and gradients may be from what they stand for."""
        ...

    def weighted(self, coefficients: Tensor) -> Tensor:
        """Return ``sum_p c_p g_p``.

        Args:
            coefficients: ``(P,)``, one a patient.

        Returns:
            The weight's shape.
        """
        ...


def prefers_ghost(work: WeightProduct) -> bool:
    """Return whether ghost norms and one weighted sum cost less than a gradient a patient."""
    patients, weights = work.patient_index.patients, work.weights()
    if patients == 1 or work.ghost_cost() == float("inf"):
        return False
    ghosts, gradients = patients * work.ghost_bytes(), patients * weights * 4
    if max(ghosts, gradients) > _MOST_BYTES:
        return ghosts < gradients
    fits = patients * weights <= _NUMBERS_IN_CACHE
    return work.ghost_cost() < weights * (_COST_OF_A_NUMBER if fits else _COST_BEYOND_CACHE)


@dataclass(frozen=True, slots=True)
class LinearProduct:
    """A linear layer's weight.

    Attributes:
        inputs: ``(M, T, in)``.
        gradients: ``(M, T, out)``, of the outputs.
    """

    patient_index: PatientIndex
    inputs: Tensor
    gradients: Tensor

    def positions(self) -> int:
        """Return T."""
        return self.inputs.shape[1]

    def weights(self) -> int:
        """Return ``in * out``."""
        return self.inputs.shape[2] * self.gradients.shape[2]

    def ghost_cost(self) -> float:
        """Return the multiplications of one patient's ghost norm."""
        used = self.patient_index.most * self.positions()
        return _COST_OF_DOUBLE * used**2 * (self.inputs.shape[2] + self.gradients.shape[2])

    def ghost_bytes(self) -> int:
        """Return the memory of one patient's ghost norm."""
        return 16 * (self.patient_index.most * self.positions()) ** 2

    def of_patients(self) -> Tensor:
        """Return ``(P, out, in)``."""
        rows = (
            self.patient_index.stacked(part).flatten(1, 2) for part in (self.gradients, self.inputs)
        )
        gradients, inputs = rows
        return torch.bmm(gradients.mT, inputs)

    def ghost_norms(self) -> Tensor:
        """Return ``(P,)`` float64."""
        rows = (
            self.patient_index.stacked(part).flatten(1, 2) for part in (self.gradients, self.inputs)
        )
        first, second = (torch.bmm(part, part.mT) for part in (row.double() for row in rows))
        return (first * second).sum((1, 2))

    def roundings(self) -> Roundings:
        """Return how far norms and gradients may be from what they stand for."""
        spread = _lengths(self.patient_index, self.inputs, self.gradients)
        terms = self.patient_index.most * self.positions()
        return Roundings.of_sums(terms, spread, self.inputs.dtype)

    def weighted(self, coefficients: Tensor) -> Tensor:
        """Return ``(out, in)``.

        Args:
            coefficients: ``(P,)``, one a patient.
        """
        scale = self.patient_index.spread(coefficients).to(self.gradients.dtype)
        scaled = self.gradients * scale[:, None, None]
        return scaled.flatten(0, 1).T @ self.inputs.flatten(0, 1)


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a convolution moves over its input, one number a dimension."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True, slots=True)
class ConvolutionProduct:
    """A convolution's weight.

    A transposed convolution is one from its output to its input: its inputs stand under
    ``gradients`` and the gradients of its outputs under ``inputs``.

    Attributes:
        inputs: ``(M, C, *spatial)``.
        gradients: ``(M, D, *positions)``.
        weight: ``(D, C / groups, *kernel)``; only its shape and type count.
    """

    patient_index: PatientIndex
    inputs: Tensor
    gradients: Tensor
    weight: Tensor
    geometry: Geometry

    def positions(self) -> int:
        """Return the pixels of the gradients."""
        return prod(self.gradients.shape[2:])

    def weights(self) -> int:
        """Return the number of weights."""
        return self.weight.numel()

    def ghost_cost(self) -> float:
        """Return the multiplications of one patient's ghost norm."""
        if self.geometry.groups > 1:
            return float("inf")
        used, pixels = self.patient_index.most * self.positions(), prod(self.inputs.shape[2:])
        products = (self.patient_index.most * pixels) ** 2 * self.inputs.shape[1]
        products += used**2 * self.gradients.shape[1]
        sums = self._pixels() ** 2 * sum(self.weight.shape[2:])
        return _COST_OF_DOUBLE * products + _COST_OF_A_SUM * sums

    def ghost_bytes(self) -> int:
        """Return the memory of one patient's ghost norm."""
        return 16 * self._pixels() ** 2

    def of_patients(self) -> Tensor:
        """Return ``(P, *weight)``."""
        if self.patient_index.patients * self.weights() <= _NUMBERS_IN_CACHE:
            return self._grouped()
        begin, made = 0, []
        for count in self.patient_index.counts:
            rows = slice(begin, begin + count)
            made.append(self._gradient(self.inputs[rows], self.gradients[rows], self.weight))
            begin += count
        return torch.stack(made)

    def ghost_norms(self) -> Tensor:
        """Return ``(P,)`` float64.

        The products of patches are sums of products of pixels along the diagonals of the kernel,
        one dimension after the other: no patch is laid out.
        """
        patches, geometry = _products(self.patient_index.stacked(self.inputs)), self.geometry
        around = [width for side in reversed(geometry.padding) for width in (side, side)]
        patches = F.pad(patches, [*around, 0, 0, *around])
        shape, kernel = self.gradients.shape[2:], self.weight.shape[2:]
        for axis, steps in enumerate(zip(kernel, geometry.dilation, geometry.stride, strict=True)):
            patches = _along_diagonal(patches, axis, shape, steps)
        return (_products(self.patient_index.stacked(self.gradients)) * patches).flatten(1).sum(1)

    def roundings(self) -> Roundings:
        """Return how far norms and gradients may be from what they stand for."""
        sides = zip(self.weight.shape[2:], self.geometry.stride, strict=True)
        uses = prod(-(-size // stride) for size, stride in sides)  # of a pixel, by patches
        spread = uses**0.5 * _lengths(self.patient_index, self.inputs, self.gradients)
        terms = self.patient_index.most * self.positions()
        return Roundings.of_sums(terms, spread, self.inputs.dtype)

    def weighted(self, coefficients: Tensor) -> Tensor:
        """Return the weight's shape.

        Args:
            coefficients: ``(P,)``, one a patient.
        """
        inputs, gradients = self.inputs, self.gradients
        scale = self.patient_index.spread(coefficients).to(inputs.dtype)
        scale = scale.reshape(-1, *(1 for _ in inputs.shape[1:]))
        if inputs.numel() < gradients.numel():
            return self._gradient(inputs * scale, gradients, self.weight)
        return self._gradient(inputs, gradients * scale, self.weight)

    def _pixels(self) -> int:
        """Return the pixels of a patient's inputs with the padding around them."""
        sides = zip(self.inputs.shape[2:], self.geometry.padding, strict=True)
        return self.patient_index.most * prod(side + 2 * padding for side, padding in sides)

    def _grouped(self) -> Tensor:
        """Return all gradients by one convolution in which each patient is a group of channels."""
        inputs, gradients = (self._in_groups(part) for part in (self.inputs, self.gradients))
        patients, shape = self.patient_index.patients, self.weight.shape
        weight = self.weight.new_empty(patients * shape[0], *shape[1:])
        made = self._gradient(inputs, gradients, weight, patients * self.geometry.groups)
        return made.reshape(patients, *shape)

    def _in_groups(self, rows: Tensor) -> Tensor:
        """Return ``(n, P * C, *spatial)`` of ``(M, C, *spatial)``."""
        if self.patient_index.most == 1:
            return rows.flatten(0, 1).unsqueeze(0)
        return self.patient_index.stacked(rows).transpose(0, 1).flatten(1, 2)

    def _gradient(
        self, inputs: Tensor, gradients: Tensor, weight: Tensor, groups: int = 0
    ) -> Tensor:
        geometry = self.geometry
        found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
            gradients,
            inputs,
            weight,
            None,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            False,
            [0] * len(geometry.stride),
            groups or geometry.groups,
            [False, True, False],
        )
        return found[1]


def _lengths(patient_index: PatientIndex, inputs: Tensor, gradients: Tensor) -> Tensor:
    """Return ``(P,)`` float64: the length of a patient's inputs times that of the gradients."""
    lengths = [
        patient_index.total(
            torch.linalg.vector_norm(part.flatten(1), dim=1, dtype=torch.float64).square()
        )
        for part in (inputs, gradients)
    ]
    return (lengths[0] * lengths[1]).sqrt()


def _along_diagonal(
    pixels: Tensor, axis: int, shape: torch.Size, steps: tuple[int, int, int]
) -> Tensor:
    """Sum ``(P, n, *s, n, *s)`` over the places of a kernel in one dimension, in both its axes.

    Args:
        axis: The dimension, counted from 0.
        shape: Positions of the kernel in each dimension.
        steps: The kernel's size, its dilation and its stride.
    """
    size, dilation, stride = steps
    count, first, second = shape[axis], 2 + axis, 3 + len(shape) + axis
    total: Tensor | None = None
    for place in range(0, size * dilation, dilation):
        taken = slice(place, place + (count - 1) * stride + 1, stride)
        index = [slice(None)] * pixels.ndim
        index[first] = index[second] = taken
        part = pixels[tuple(index)]
        total = part.clone() if total is None else total.add_(part)
    return pixels if total is None else total


def _products(pixels: Tensor) -> Tensor:
    """Return ``(P, n, *s, n, *s)``: all scalar products over channels of ``(P, n, C, *s)``."""
    shape = (pixels.shape[1], *pixels.shape[3:])
    rows = pixels.double().movedim(2, -1).flatten(1, -2)
    return torch.bmm(rows, rows.mT).reshape(len(pixels), *shape, *shape)
