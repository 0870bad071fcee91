"""Bulyan: Krum again and again, then a trimmed mean around the median."""

import torch
from torch import Tensor

from wardround.server.strategies.aggregation.krum import krum_scores, pairwise_distances
from wardround.server.strategies.aggregation.stacked import by_columns


def bulyan(matrix: Tensor, weights: Tensor, hostile: int) -> Tensor:
    """Return Bulyan of Krum (El Mhamdi et al. 2018, section 4).

    First ``n - 2f`` updates are chosen one after another, each Krum's best among those left. Then
    every coordinate is the mean of the ``n - 4f`` chosen values nearest to their median.

    Weight: both choices ignore it; the last mean uses it. All values in that mean lie near the
    median, so a false weight moves the result no further than those values reach.

    Args:
        matrix: ``(n, d)``.
        weights: ``(n,)`` shares.
        hostile: ``f``; at least ``4 f + 3`` sites.

    Returns:
        ``(d,)``, in the updates' dtype.
    """
    chosen = _choose(pairwise_distances(matrix), len(matrix) - 2 * hostile, hostile)
    kept = len(chosen) - 2 * hostile
    shares = weights[chosen].to(matrix.dtype)
    return by_columns(matrix[chosen], lambda part: _mean_around_median(part, shares, kept))


def _choose(distances: Tensor, count: int, hostile: int) -> list[int]:
    left = list(range(len(distances)))
    chosen = []
    for _ in range(count):
        places = torch.tensor(left)
        among = distances[places][:, places]
        # Two that are each other's nearest have the same score; the order of the sites must not
        # decide, so the one nearer to all the others goes first.
        ranks = list(zip(krum_scores(among, hostile).tolist(), among.sum(1).tolist(), strict=True))
        chosen.append(left.pop(ranks.index(min(ranks))))
    return sorted(chosen)


def _mean_around_median(matrix: Tensor, weights: Tensor, kept: int) -> Tensor:
    away = (matrix - matrix.quantile(0.5, dim=0)).abs()
    nearest = away.argsort(dim=0, stable=True)[:kept]
    shares = weights[nearest]
    mean: Tensor = (matrix.gather(0, nearest) * shares).sum(0) / shares.sum(0)
    return mean
