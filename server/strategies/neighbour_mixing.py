"""Nearest-neighbour mixing before a trimmed mean: what unequal hospitals need."""

import torch
from torch import Tensor

from wardround.server.strategies.krum import pairwise_distances
from wardround.server.strategies.stacked import by_columns
from wardround.server.strategies.trimmed_mean import trimmed_columns


def mixed_trimmed_mean(matrix: Tensor, weights: Tensor, hostile: int) -> Tensor:
    """Return the trimmed mean of updates that were first mixed with their neighbours.

    NNM: Allouah et al. 2023, algorithm 2: every update becomes the mean of its ``n - f`` nearest
    (itself among them). Honest updates that differ because their patients do come closer
    together, so the trimmed mean no longer throws them away.

    Weight: enters the mixing mean only. Who is near ignores it, and the trimmed mean counts every
    mixture once: near sites have the same mixture, and which of them goes must not matter. A liar
    that is near to honest sites gains in their mixtures what the cap on weights leaves it.

    Args:
        matrix: ``(n, d)``.
        weights: ``(n,)`` shares.
        hostile: ``f``, below ``n / 2``.
    """
    mixing = neighbour_mixing(matrix, weights, hostile)
    equal = torch.ones_like(weights)
    return by_columns(matrix, lambda part: trimmed_columns(mixing @ part, equal, hostile))


def neighbour_mixing(matrix: Tensor, weights: Tensor, hostile: int) -> Tensor:
    """Return the ``(n, n)`` matrix whose row i mixes the neighbours of update i; rows sum to 1."""
    nearest = pairwise_distances(matrix).argsort(dim=1, stable=True)[:, : len(matrix) - hostile]
    mixing = torch.zeros(len(matrix), len(matrix), dtype=torch.float64)
    mixing.scatter_(1, nearest, weights.double()[nearest])
    return (mixing / mixing.sum(1, keepdim=True)).to(matrix.dtype)
