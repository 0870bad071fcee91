"""The geometric median, weighted: the point with the least sum of distances."""

import torch
from torch import Tensor

from wardround.server.strategies.aggregation.site_weights import outvoted_weights, weighted_mean

_SMOOTHING = 1e-6  # the paper's nu, relative to the median norm of the updates
_TOLERANCE = 1e-6  # relative to the result's length
_ITERATIONS = 200  # a bound on time: Weiszfeld's iteration converges linearly


def geometric_median(matrix: Tensor, weights: Tensor, hostile: int) -> Tensor:
    """Return ``argmin_z sum_i w_i |z - x_i|`` (RFA: Pillutla et al. 2022, algorithm 2).

    By the smoothed Weiszfeld iteration from the round's own start, until it moves no more.

    Weight: each distance counts by weight. Who holds half of the weight decides, so the ``hostile``
    heaviest sites are cut until together they hold less; the distance to the honest mean grows as
    they come near to it. Updates of ordinary length in a common direction (a backdoor) get through.

    Args:
        matrix: ``(n, d)``.
        weights: ``(n,)`` shares.
        hostile: ``f``, below ``n / 2``.

    Returns:
        ``(d,)``, in the updates' dtype.
    """
    fair = outvoted_weights(weights, hostile)
    floor = _SMOOTHING * float(_norms(matrix).median()) or _SMOOTHING
    centre = torch.zeros_like(matrix[0])
    for _ in range(_ITERATIONS):
        moved = weighted_mean(matrix, fair / _norms(matrix - centre).clamp(min=floor))
        step = float(torch.linalg.vector_norm(moved - centre))
        centre = moved
        if step <= _TOLERANCE * float(torch.linalg.vector_norm(centre)):
            break
    return centre


def _norms(matrix: Tensor) -> Tensor:
    """Return the rows' lengths, in float64: a hostile one overflows float32."""
    norms: Tensor = torch.linalg.vector_norm(matrix, dim=1, dtype=torch.float64)
    return norms
