"""The coordinate-wise median, weighted."""

import torch
from torch import Tensor

from wardround.server.strategies.aggregation.site_weights import outvoted_weights
from wardround.server.strategies.aggregation.stacked import by_columns

_TIE = 1e-9  # shares are sums of float64: exactly half is met to a few parts in 1e16


def coordinate_median(matrix: Tensor, weights: Tensor, hostile: int) -> Tensor:
    """Return the weighted median of every coordinate (Yin et al. 2018, definition 1).

    Weight: a coordinate's median is where half of the *weight* lies below and half above; equal
    weights give the ordinary median. Who claims more than half of all weight would decide alone, so
    the ``hostile`` heaviest sites are cut until together they hold less than half; the result then
    lies between the least and the greatest honest value of each coordinate, whatever is claimed.

    Args:
        matrix: ``(n, d)``.
        weights: ``(n,)`` shares.
        hostile: ``f``, below ``n / 2``.

    Returns:
        ``(d,)``, in the updates' dtype.
    """
    fair = outvoted_weights(weights, hostile)
    return by_columns(matrix, lambda part: weighted_median(part, fair))


def weighted_median(matrix: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted median of the columns of ``(n, c)``, ``(c,)``.

    Where exactly half of the weight lies at or below a value, it is the mean of that value and the
    next, as for an even number of equal weights.

    Args:
        matrix: ``(n, c)``.
        weights: ``(n,)``, at least 0; they need not sum to 1.

    Returns:
        ``(c,)``.
    """
    ordered, order = matrix.sort(dim=0)
    reached = (weights / weights.sum())[order].cumsum(0)
    low = (reached >= 0.5 - _TIE).int().argmax(0, keepdim=True)
    high = (reached > 0.5 + _TIE).int().argmax(0, keepdim=True)
    below, above = ordered.gather(0, low), ordered.gather(0, high)
    middle: Tensor = torch.lerp(below, above, 0.5).squeeze(0)
    return middle
