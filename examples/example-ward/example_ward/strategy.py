"""A strategy: how the changes of a round combine."""

from torch import Tensor


def clipped_mean(changes: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of changes (N, D), none longer than the median one."""
    lengths = changes.norm(dim=1, keepdim=True)
    limit = lengths.median()
    factors = (limit / lengths.clamp(min=1e-12)).clamp(max=1)
    return (changes * factors * weights.to(changes)[:, None]).sum(0)
