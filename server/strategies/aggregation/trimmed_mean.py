"""The coordinate-wise trimmed mean, weighted."""

from torch import Tensor

from wardround.server.strategies.aggregation.stacked import by_columns


def trimmed_mean(matrix: Tensor, weights: Tensor, hostile: int) -> Tensor:
    """Return each coordinate's weighted mean without its extremes (Yin et al. 2018, definition 2).

    Weight: the ``f`` largest and the ``f`` smallest values of a coordinate go *whatever they weigh*
    and the rest is averaged by weight. What is left lies between honest values, so a false weight
    cannot push the result beyond them; within them it draws towards the liar's own value.

    Args:
        matrix: ``(n, d)``.
        weights: ``(n,)`` shares.
        hostile: ``f``, below ``n / 2``.

    Returns:
        ``(d,)``, in the updates' dtype.
    """
    return by_columns(matrix, lambda part: trimmed_columns(part, weights, hostile))


def trimmed_columns(matrix: Tensor, weights: Tensor, hostile: int) -> Tensor:
    """Return the trimmed mean of the columns of ``(n, c)``, ``(c,)``.

    Args:
        matrix: ``(n, c)``.
        weights: ``(n,)``, above 0.
        hostile: How many values go at each end, below ``n / 2``.

    Returns:
        ``(c,)``.
    """
    ordered, order = matrix.sort(dim=0, stable=True)
    kept = slice(hostile, len(matrix) - hostile)
    shares = weights.to(matrix.dtype)[order[kept]]
    mean: Tensor = (ordered[kept] * shares).sum(0) / shares.sum(0)
    return mean
