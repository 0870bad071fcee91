"""SGD, Adam and AdamW over stacked weights: each site's step is the one it would make alone.

All are elementwise, so a stack of k sites is one tensor of k times as many numbers; only the
learning rate may differ from site to site. The arithmetic is that of ``torch.optim``.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from wardround.common.study.sections.training import TrainingSection

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # torch's own, which build_optimiser takes
_MATRIX = 2  # axes of a weight matrix; with that of the sites one more

Weights = Sequence[Tensor]


class StackedOptimiser(Protocol):
    """What follows from gradients, and is kept from step to step."""

    def step(self, weights: Weights, gradients: Weights, rates: Sequence[float]) -> None:
        """Change the weights of the first m sites.

        Args:
            weights: Each ``(m, ...)``; always the same parameters, of ever fewer sites.
            gradients: Of the same shapes; they may be used up.
            rates: m learning rates.
        """


class _State:
    """One tensor a parameter, zero at first, of which ever fewer rows are used."""

    def __init__(self) -> None:
        self._whole: list[Tensor] = []

    def rows(self, like: Weights) -> list[Tensor]:
        if not self._whole:
            self._whole = [torch.zeros_like(weight) for weight in like]
        return [kept[: len(weight)] for kept, weight in zip(self._whole, like, strict=True)]


class StackedSGD:
    """``torch.optim.SGD`` with momentum and weight decay."""

    def __init__(self, training: TrainingSection) -> None:
        self._training = training
        self._momentum = _State()

    def step(self, weights: Weights, gradients: Weights, rates: Sequence[float]) -> None:
        """See :class:`StackedOptimiser`."""
        training, moves = self._training, list(gradients)
        if training.weight_decay:
            torch._foreach_add_(moves, list(weights), alpha=training.weight_decay)
        if training.momentum:
            kept = self._momentum.rows(weights)
            torch._foreach_mul_(kept, training.momentum)
            torch._foreach_add_(kept, moves)
            moves = kept
        _descend(weights, moves, rates)


class StackedAdam:
    """``torch.optim.Adam`` (Kingma and Ba 2015); AdamW (Loshchilov and Hutter 2019) if decoupled.

    Decoupled, scales, shifts and biases are not decayed.
    """

    def __init__(self, training: TrainingSection) -> None:
        self._decay = training.weight_decay
        self._is_decoupled = training.optimiser == "adamw"
        self._first, self._second = _State(), _State()
        self._steps = 0

    def step(self, weights: Weights, gradients: Weights, rates: Sequence[float]) -> None:
        """See :class:`StackedOptimiser`."""
        self._steps += 1
        moves = list(gradients)
        if self._decay and self._is_decoupled:
            decayed = [weight for weight in weights if weight.ndim > _MATRIX]
            _descend(decayed, torch._foreach_mul(decayed, self._decay), rates)
        elif self._decay:
            torch._foreach_add_(moves, list(weights), alpha=self._decay)
        first, second = self._first.rows(weights), self._second.rows(weights)
        torch._foreach_lerp_(first, moves, 1 - _BETAS[0])
        torch._foreach_mul_(second, _BETAS[1])
        torch._foreach_addcmul_(second, moves, moves, 1 - _BETAS[1])
        scale = torch._foreach_sqrt(second)
        torch._foreach_div_(scale, (1 - _BETAS[1] ** self._steps) ** 0.5)
        torch._foreach_add_(scale, _EPSILON)
        moves = list(torch._foreach_div(first, scale))
        corrected = 1 - _BETAS[0] ** self._steps
        _descend(weights, moves, [rate / corrected for rate in rates])


STACKED: dict[str, Callable[[TrainingSection], StackedOptimiser]] = {
    "sgd": StackedSGD,
    "adam": StackedAdam,
    "adamw": StackedAdam,
}


def clip_each(gradients: Weights, largest: float) -> None:
    """Scale each site's gradient down to a norm, as ``nn.utils.clip_grad_norm_`` does for one.

    Args:
        gradients: Each ``(m, ...)``; changed in place.
        largest: The norm, above 0, over all of a site's parameters together.
    """
    parts = [torch.linalg.vector_norm(one.flatten(1), dim=1) for one in gradients]
    norms = torch.linalg.vector_norm(torch.stack(parts), dim=0)
    factors = (largest / (norms + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(list(gradients), [_column(factors, one) for one in gradients])


def _descend(weights: Weights, moves: Weights, rates: Sequence[float]) -> None:
    """Go against the moves, each site as far as its rate says."""
    if not weights:
        return
    if len(set(rates)) == 1:
        torch._foreach_add_(list(weights), list(moves), alpha=-rates[0])
        return
    each = torch.tensor(rates, dtype=weights[0].dtype, device=weights[0].device)
    columns = [_column(each, weight) for weight in weights]
    torch._foreach_addcmul_(list(weights), list(moves), columns, -1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """Return ``(m,)`` as ``(m, 1, ...)``, with as many axes as another tensor has."""
    return values.reshape(-1, *(1 for _ in like.shape[1:]))
