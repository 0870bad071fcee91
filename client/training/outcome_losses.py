"""Losses of tasks that predict a number or a time: one number a sample, from ``(B, ...)`` outputs.

Targets are on the scale that ``[data.outcome]`` gives, on which a number is about 1 in size.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


def squared_error(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return ``(p - y)^2``.

    Args:
        outputs: ``(B, 1)`` float32.
        targets: ``(B, 1)`` float32.
        class_weights: Not used: there are no classes.

    Returns:
        ``(B,)``, each in [0, inf).
    """
    return F.mse_loss(outputs, targets, reduction="none").mean(1)


def absolute_error(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return ``|p - y|``, which few wrong labels move less; as :func:`squared_error` otherwise."""
    return F.l1_loss(outputs, targets, reduction="none").mean(1)


def huber(outputs: Tensor, targets: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Return ``e^2 / 2`` up to ``|e|`` of 1, and ``|e| - 1 / 2`` beyond (Huber 1964).

    1 is one ``data.outcome.scale``. As :func:`squared_error` otherwise.
    """
    return F.huber_loss(outputs, targets, reduction="none").mean(1)


OUTCOME_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "mse": squared_error,
    "l1": absolute_error,
    "huber": huber,
}
