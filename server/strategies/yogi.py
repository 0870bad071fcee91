"""Yogi, the one server optimiser that torch lacks."""

from collections.abc import Callable, Iterable
from typing import overload

import torch
from torch import Tensor

from wardround.common.runtime.eager_optimisers import EagerOptimiser


class Yogi(EagerOptimiser):
    """Adam whose second moment moves by at most a constant (Zaheer et al. 2018).

    As FedYogi uses it (Reddi et al. 2021, algorithm 2, without bias correction):
    ``m <- b1 m + (1 - b1) g``, ``v <- v - (1 - b2) g^2 sign(v - g^2)``, ``x <- x - lr m / (sqrt(v)
    + tau)``, and ``v`` starts at tau squared.

    Args:
        learning_rate: Above 0.
        betas: Decays of the two moments, in [0, 1).
        epsilon: tau, above 0.
    """

    def __init__(
        self,
        weights: Iterable[Tensor],
        learning_rate: float,
        betas: tuple[float, float],
        epsilon: float,
    ) -> None:
        super().__init__(weights, {"lr": learning_rate, "betas": betas, "eps": epsilon})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Make one step; a closure is not needed."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group["lr"], group["betas"], group["eps"])
        return loss

    def _move(
        self, weight: Tensor, rate: float, betas: tuple[float, float], epsilon: float
    ) -> None:
        state, gradient = self.state[weight], weight.grad
        if gradient is None:
            return
        if not state:
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.full_like(weight, epsilon**2)
        squared = gradient.square()
        mean, variance = state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(gradient, 1 - betas[0])
        variance.sub_(squared * (variance - squared).sign_(), alpha=1 - betas[1])
        weight.addcdiv_(mean, variance.sqrt().add_(epsilon), value=-rate)
