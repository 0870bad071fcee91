"""The Gaussian mechanism, computed so that its rounding tells nothing.

Noise of floating-point numbers does not reach every number, and which it reaches tells what it was
added to (Mironov 2012; Holohan and Braghin 2021). So the noise is made of 64 bits, added in double
precision, and what is let out is rounded to a public grid of at most 2^-10 standard deviations.
Rounding true Gaussian noise so would be post-processing. Here a cell of the grid holds 2^41 of the
noise's values at its middle and 2^16 at 7 standard deviations: from every sum every cell is
reached, with almost the same probability as by true noise. Not covered: how long it takes, and who
reads the memory of the machine.
"""

import math

import torch
from torch import Tensor

from wardround.common.privacy.secure_random import Randomness, blocks

# The grid is this fine: 2^-10 of the noise's standard deviation, rounded down to a power of two.
# Rounding to it adds less than 1e-7 to the noise's variance.
_GRID_BITS = 10


def grid_step(deviation: float) -> float:
    """Return the distance of the grid's lines for noise of a standard deviation above 0."""
    return 2.0 ** (math.floor(math.log2(deviation)) - _GRID_BITS)


def noised(value: Tensor, deviation: float, randomness: Randomness) -> Tensor:
    """Return a value plus noise, on the grid, as float64.

    Args:
        value: Not changed.
        deviation: Of the noise, at least 0.
        randomness: Where the noise comes from.

    Returns:
        The shape of ``value``, float64.
    """
    total = value.detach().to(torch.float64, copy=True).contiguous()
    if deviation == 0:
        return total
    step, flat = grid_step(deviation), total.view(-1)
    for start, end in blocks(flat.numel(), flat.device):
        block = flat[start:end]
        block.add_(randomness.normal((end - start,), flat.device), alpha=deviation)
        block.div_(step).round_().mul_(step)
    return total
