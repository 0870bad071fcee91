"""Krum and Multi-Krum: trust the updates that have many near neighbours."""

import torch
from torch import Tensor

from wardround.server.strategies.aggregation.site_weights import weighted_mean


def krum(matrix: Tensor, weights: Tensor, hostile: int) -> Tensor:
    """Return the update nearest to its ``n - f - 2`` neighbours (Blanchard et al. 2017, section 4).

    Weight: none. One site's update is taken as it is, and a site cannot be chosen for what it
    claims. With unequal hospitals a single one is a poor average: prefer Multi-Krum.

    Args:
        matrix: ``(n, d)``.
        weights: ``(n,)`` shares; not used.
        hostile: ``f``; at least ``2 f + 3`` sites.

    Returns:
        ``(d,)``, in the updates' dtype.
    """
    return matrix[int(krum_scores(pairwise_distances(matrix), hostile).argmin())].clone()


def multi_krum(matrix: Tensor, weights: Tensor, hostile: int) -> Tensor:
    """Return the weighted mean of the ``n - f - 2`` best updates by Krum's score.

    Blanchard et al. 2017, section 4, with the number of Damaskinos et al. 2019 (AggregaThor,
    theorem 1). Weight: the choice ignores it; the mean of the chosen uses it. A liar that imitates
    an honest update well enough to be chosen then counts for as much as the cap on weights allows.

    Args:
        matrix: ``(n, d)``.
        weights: ``(n,)`` shares.
        hostile: ``f``; at least ``2 f + 3`` sites.

    Returns:
        ``(d,)``, in the updates' dtype.
    """
    count = len(matrix) - hostile - 2
    scores = krum_scores(pairwise_distances(matrix), hostile)
    # In the order of the sites: a sum of floats must not depend on the scores' order.
    chosen = scores.argsort(stable=True)[:count].sort().values
    return weighted_mean(matrix[chosen], weights[chosen])


def krum_scores(distances: Tensor, hostile: int) -> Tensor:
    """Return each update's sum of squared distances to its ``n - f - 2`` nearest others, ``(n,)``.

    Args:
        distances: ``(n, n)``; of fewer sites than Krum's minimum the nearest one counts.
    """
    neighbours = max(1, len(distances) - hostile - 2)
    ordered = distances.square().sort(dim=1).values
    return ordered[:, 1 : neighbours + 1].sum(1)  # the first is the update itself


def pairwise_distances(matrix: Tensor) -> Tensor:
    """Return Euclidean distances ``(n, n)`` float64, by differences.

    The usual ``a² + b² - 2ab`` loses all digits between near updates of large norm.

    Args:
        matrix: ``(n, d)``; a distance that is not finite becomes infinite.
    """
    exact = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(matrix, matrix, compute_mode=exact).double()
    return distances.nan_to_num(nan=torch.inf, posinf=torch.inf)
