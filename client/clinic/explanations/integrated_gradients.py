"""Integrated gradients (Sundararajan 2017): what each input adds on the way from a baseline."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from wardround.client.clinic.explanations.attribution import (
    Attribution,
    ExplanationError,
    Inputs,
    working_copy,
)

COMPLETE = 0.05
"""The largest error that is let through, as a share of the score's difference."""
_GOOD = 0.01  # with so little, no more steps are taken
_FIRST_STEPS, _MOST_STEPS = 32, 512
_AT_ONCE = 16  # points of the path in a batch
_LEAST_DIFFERENCE = 0.1  # logits: an error is held against no less, else it would be one over 0


def integrated_gradients(network: nn.Module, inputs: Inputs, class_index: int) -> Attribution:
    """Return the integral of the gradient of a class's logit from the baseline 0 to the input.

    The baseline is 0 in the network's own units: the mean intensity or the mean patient where the
    study normalises by mean and deviation, black where it scales to 0..1. The attributions add up
    to ``logit(input) - logit(baseline)`` (completeness); steps are doubled until they do to 1 %.

    Args:
        network: Its mode and numbers stay as they are.
        inputs: One examination: an image, clinical values, or both.
        class_index: Which logit.

    Raises:
        ExplanationError: Even with 512 steps the sum is off by more than 5 %.
    """
    copy = working_copy(network).requires_grad_(False)
    difference = _difference(copy, inputs, class_index)
    steps, error, found = _FIRST_STEPS, float("inf"), [torch.zeros_like(part) for part in inputs]
    while error > _GOOD and steps <= _MOST_STEPS:
        gradients = _mean_gradients(copy, inputs, class_index, steps)
        found = [part.double() * mean for part, mean in zip(inputs, gradients, strict=True)]
        total = sum(float(part.sum()) for part in found)
        error = abs(total - difference) / max(abs(difference), _LEAST_DIFFERENCE)
        steps *= 2
    if not error <= COMPLETE:
        msg = (
            f"the integrated gradients are incomplete: they add up to {total:.3g} where the score "
            f"differs by {difference:.3g} (an error of {error:.0%}; at most {COMPLETE:.0%} is "
            "let through). Use occlusion."
        )
        raise ExplanationError(msg)
    return _attribution(found, error)


def rough_gradients(network: nn.Module, inputs: Inputs, class_index: int) -> Attribution:
    """Return integrated gradients of few steps, complete or not, to compare maps by.

    A network with random weights is steeper than a learnt one: its map would take long to add up,
    and its ranks do not wait for that.
    """
    copy = working_copy(network).requires_grad_(False)
    gradients = _mean_gradients(copy, inputs, class_index, _FIRST_STEPS)
    found = [part.double() * mean for part, mean in zip(inputs, gradients, strict=True)]
    return _attribution(found, float("nan"))


def _attribution(found: Sequence[Tensor], error: float) -> Attribution:
    first = found[0][0].cpu().numpy().astype(np.float64)
    values = first.sum(axis=0) if found[0].ndim > 2 else first
    beside = found[1][0].cpu().numpy() if len(found) > 1 else np.zeros(0)
    return Attribution(values, values.shape, error, beside.astype(np.float64))


def _difference(network: nn.Module, inputs: Inputs, class_index: int) -> float:
    with torch.no_grad():
        there = network(*inputs)[0, class_index]
        baseline = network(*(torch.zeros_like(part) for part in inputs))[0, class_index]
    return float(there.double() - baseline.double())


def _mean_gradients(
    network: nn.Module, inputs: Inputs, class_index: int, steps: int
) -> list[Tensor]:
    """Return the mean gradient on the way from 0 to the inputs, float64.

    The steps grow with the cube of their number: after a normalisation over the image a network
    changes most where the image is almost 0, and hardly beyond.
    """
    sums = [torch.zeros_like(part, dtype=torch.float64) for part in inputs]
    ends = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=inputs[0].device) ** 3
    middles, lengths = (ends[1:] + ends[:-1]) / 2, ends.diff()
    for some, weights in zip(
        torch.split(middles, _AT_ONCE), torch.split(lengths, _AT_ONCE), strict=True
    ):
        points = tuple(
            (part * _along(some, part).to(part.dtype)).requires_grad_(True) for part in inputs
        )
        score = network(*points)[:, class_index].sum()
        gradients = torch.autograd.grad(score, points, allow_unused=True)
        for total, gradient in zip(sums, gradients, strict=True):
            if gradient is not None:
                total += (gradient.double() * _along(weights, gradient)).sum(0, keepdim=True)
    return sums


def _along(numbers: Tensor, part: Tensor) -> Tensor:
    """Return one number an example, in a shape that multiplies examples like those of a part."""
    return numbers.reshape(-1, *(1,) * (part.ndim - 1))
