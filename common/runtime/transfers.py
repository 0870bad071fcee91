"""What comes from a device, in as few copies as can be: each makes this process wait."""

from collections.abc import Sequence

import torch
from torch import Tensor


def fetched(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of one type and device on the CPU, in one copy that is waited for once."""
    if not tensors:
        return []
    flat = torch.cat([one.flatten() for one in tensors]).cpu()
    parts = torch.split(flat, [one.numel() for one in tensors])
    return [part.reshape(one.shape) for part, one in zip(parts, tensors, strict=True)]
