"""Nearest-neighbour mixing before a trimmed mean: what unequal hospitals need."""

import torch
from torch import Tensor

from wardround.server.strategies.aggregation.krum import pairwise_distances
from wardround.server.strategies.aggregation.stacked import by_columns
from wardround.server.strategies.aggregation.trimmed_mean import trimmed_columns

_LEAST_LENGTH = 0.5  # of the median update's: a site that sends nothing is as far as a stranger


def mixed_trimmed_mean(matrix: Tensor, weights: Tensor, hostile: int) -> Tensor:
    """Return the trimmed mean of updates that were first mixed with their neighbours.

    NNM: Allouah et al. 2023, algorithm 2: every update becomes the mean of its ``n - f`` nearest
    (itself among them). Honest updates that differ because their patients do come closer
    together, so the trimmed mean no longer throws them away. Who is near is decided by
    :func:`relative_distances`, which the paper does not do.

    Weight: enters the mixing mean only. Who is near ignores it, and the trimmed mean counts every
    mixture once: near sites have the same mixture, and which of them goes must not matter. A liar
    that is near to honest sites gains in their mixtures what the cap on weights leaves it.

    Args:
        matrix: ``(n, d)``.
        weights: ``(n,)`` shares.
        hostile: ``f``, below ``n / 2``.

    Returns:
        ``(d,)``, in the updates' dtype.
    """
    mixing = neighbour_mixing(matrix, weights, hostile)
    equal = torch.ones_like(weights)
    return by_columns(matrix, lambda part: trimmed_columns(mixing @ part, equal, hostile))


def neighbour_mixing(matrix: Tensor, weights: Tensor, hostile: int) -> Tensor:
    """Return the ``(n, n)`` matrix whose row i mixes the neighbours of update i; rows sum to 1.

    Args:
        matrix: ``(n, d)``.
        weights: ``(n,)`` shares.
        hostile: ``f``; each row mixes ``n - f`` updates.
    """
    nearest = relative_distances(matrix).argsort(dim=1, stable=True)[:, : len(matrix) - hostile]
    mixing = torch.zeros(len(matrix), len(matrix), dtype=torch.float64)
    mixing.scatter_(1, nearest, weights.double()[nearest])
    return (mixing / mixing.sum(1, keepdim=True)).to(matrix.dtype)


def relative_distances(matrix: Tensor) -> Tensor:
    """Return ``|u_i - u_j|^2 / |u_j|``, how far update j is from update i; ``(n, n)`` float64.

    By plain distance a short update is near to everybody: honest updates of hospitals that differ
    point apart, and what lies between them is nearer to each than they are to each other. A liar
    that sends a small step backwards then takes the place of the honest site with the rarest
    patients in every mixture. Divided by its length, a short update is as far as one as many times
    too long, and what counts between the two is the direction.

    A length counts for at least half of the median one. An honest site that sends nothing is then
    as far as one at right angles, and no liar with a huge update comes before it.

    Args:
        matrix: ``(n, d)`` updates.
    """
    lengths = torch.linalg.vector_norm(matrix, dim=1, dtype=torch.float64)
    lengths = lengths.clamp(min=_LEAST_LENGTH * float(lengths.median()))
    distances = pairwise_distances(matrix)
    relative = (distances.square() / lengths).masked_fill(distances == 0, 0.0)
    finite: Tensor = relative.nan_to_num(nan=torch.inf, posinf=torch.inf)
    return finite
