"""How much each site counts in a rule that distrusts its sites.

A site says itself how many examinations it trained on, so a hostile one can claim any number.
"""

import torch
from torch import Tensor

_HALF = 0.5


def capped_weights(examinations: Tensor, cap: float | None) -> Tensor:
    """Return shares that sum to 1, no site counting for more than ``cap`` times the median site.

    Args:
        examinations: ``(n,)``, above 0, as the sites claim them.
        cap: At least 1; None takes the claims as they are.

    Returns:
        ``(n,)`` float64.
    """
    weights = examinations.double()
    if cap is not None:
        weights = weights.clamp(max=cap * float(weights.quantile(_HALF)))
    return weights / weights.sum()


def outvoted_weights(weights: Tensor, hostile: int) -> Tensor:
    """Return shares of which the ``hostile`` heaviest sites hold less than half.

    A rule that follows the majority of the *weight* (a median) is only safe while no group of
    hostile sites is that majority. The heaviest sites are cut to the next lighter one until this
    holds; with more than two times as many sites as hostile ones it always can.

    Args:
        weights: ``(n,)`` float64 shares.

    Returns:
        ``(n,)`` float64, summing to 1.
    """
    if hostile == 0:
        return weights
    while float(weights.topk(hostile).values.sum() / weights.sum()) >= _HALF:
        heaviest = weights.max()
        lighter = weights[weights < heaviest]
        if len(lighter) == 0:
            break
        weights = weights.clamp(max=float(lighter.max()))
    shares: Tensor = weights / weights.sum()
    return shares


def weighted_mean(matrix: Tensor, weights: Tensor) -> Tensor:
    """Return the mean of the rows of ``(n, d)``, ``(d,)``; the weights need not sum to 1.

    Args:
        matrix: ``(n, d)``.
        weights: ``(n,)``, at least 0, not all 0.
    """
    shares = (weights / weights.sum()).to(matrix.dtype)
    return torch.mv(matrix.T, shares)
