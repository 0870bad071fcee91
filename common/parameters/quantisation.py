"""Real numbers as small integers: symmetric, a scale for each run of values."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wardround.common.errors import ModelError

_NIBBLE_ZERO = 8  # codes -7..7 are written as 1..15


@dataclass(frozen=True, slots=True)
class ScaleBlock:
    """``rows`` times ``width`` values of a vector, from ``offset`` on; each row has a scale."""

    offset: int
    rows: int
    width: int

    @property
    def run(self) -> slice:
        """Where its values lie."""
        return slice(self.offset, self.offset + self.rows * self.width)


def quantise(vector: Tensor, blocks: Sequence[ScaleBlock], limit: int) -> tuple[Tensor, Tensor]:
    """Return codes in ``-limit..limit`` and a scale a row; ``code * scale`` is within half a scale.

    A row's scale is its largest absolute value over ``limit``, so zero stays zero.

    Args:
        vector: ``(d,)`` float32, finite.

    Returns:
        ``(values in blocks,)`` int8, and ``(rows,)`` float32.
    """
    codes, scales = [torch.zeros(0, dtype=torch.int8)], [torch.zeros(0)]
    for block in blocks:
        values = vector[block.run].reshape(block.rows, block.width)
        scale = values.abs().amax(1) / limit
        divisor = torch.where(scale > 0, scale, torch.ones_like(scale)).unsqueeze(1)
        rounded = (values / divisor).round_().clamp_(-limit, limit)
        codes.append(rounded.to(torch.int8).reshape(-1))
        scales.append(scale)
    return torch.cat(codes), torch.cat(scales)


def dequantise(
    codes: Tensor, scales: Tensor, blocks: Sequence[ScaleBlock], limit: int, into: Tensor
) -> None:
    """Write ``code * scale`` to the blocks' places of a vector.

    Raises:
        ModelError: A scale is below 0 or not finite, or a code is out of range.
    """
    if not bool((torch.isfinite(scales) & (scales >= 0)).all()):
        msg = (
            "a scale of the quantised update is below 0 or not finite: the site must send it anew."
        )
        raise ModelError(msg)
    if len(codes) and int(codes.min()) < -limit:
        msg = f"a code of the quantised update is below -{limit}: the site must send it anew."
        raise ModelError(msg)
    code_place = scale_place = 0
    for block in blocks:
        count = block.rows * block.width
        part = codes[code_place : code_place + count].reshape(block.rows, block.width)
        scale = scales[scale_place : scale_place + block.rows].unsqueeze(1)
        into[block.run] = (part * scale).reshape(-1)
        code_place += count
        scale_place += block.rows


def pack_nibbles(codes: Tensor) -> Tensor:
    """Return int8 codes in -7..7 two a byte, the first in the lower half; an odd end gets a 0."""
    raised = (codes + _NIBBLE_ZERO).to(torch.uint8)
    if len(raised) % 2:
        raised = torch.cat([raised, raised.new_full((1,), _NIBBLE_ZERO)])
    return raised[0::2] | (raised[1::2] << 4)


def unpack_nibbles(packed: Tensor, count: int) -> Tensor:
    """Return the first ``count`` codes as int8; half a byte of 0 becomes -8, which is refused."""
    halves = torch.stack([packed & 15, packed >> 4], dim=1).reshape(-1)
    return halves[:count].to(torch.int8) - _NIBBLE_ZERO
