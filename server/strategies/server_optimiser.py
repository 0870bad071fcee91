"""What the server does with the sites' combined model: a torch optimiser on their pseudo-gradient.

The pseudo-gradient is ``model - combined`` (Reddi et al. 2021, algorithm 1). Only what a gradient
changes takes the step; running means and counters become the combined ones as they are, since a
variance that overshoots is negative.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from wardround.common.parameters.schema import Model, Parameters
from wardround.common.runtime import eager_optimisers
from wardround.common.study.plans.strategy import StrategyPlan
from wardround.server.strategies.yogi import Yogi

_Build = Callable[[list[Tensor], StrategyPlan], torch.optim.Optimizer]


class ServerStep(Protocol):
    """Makes the next model, and remembers what it needs to."""

    def apply(self, model: Model, combined: Parameters, answered: float) -> Parameters:
        """Return the next model.

        Args:
            model: What the round started from; not changed.
            combined: What the sites made of it; may be changed.
            answered: The sites that answered, as a share of all sites' weight, in (0, 1].
        """

    def state(self) -> Parameters:
        """Return what must survive a crash."""

    def restore(self, state: Parameters) -> None:
        """Go on from a state."""


class Replace:
    """The combined model is the next one (FedAvg)."""

    def apply(self, model: Model, combined: Parameters, answered: float) -> Parameters:
        """Return the combined model."""
        return combined

    def state(self) -> Parameters:
        """Return nothing: there is nothing to remember."""
        return {}

    def restore(self, state: Parameters) -> None:
        """Do nothing: there is nothing to remember."""


class OptimiserStep:
    """One step of an optimiser a round; its momenta go on from round to round."""

    def __init__(self, name: str, plan: StrategyPlan, trainable: frozenset[str]) -> None:
        self._build = OPTIMISERS[name]
        self._plan = plan
        self._trainable = trainable
        self._state: dict[str, dict[str, Tensor]] = {}

    def apply(self, model: Model, combined: Parameters, answered: float) -> Parameters:
        """Return the model after one step along the pseudo-gradient.

        Tensor by tensor, since these optimisers take each for itself: only one is held twice.
        """
        for name in [name for name in model if name in self._trainable]:
            weight = model[name].clone()
            weight.grad = weight - combined[name]
            optimiser = self._build([weight], self._plan)
            if name in self._state:
                optimiser.state[weight] = self._state[name]
            optimiser.step()
            left = optimiser.state[weight].items()
            self._state[name] = {key: value for key, value in left if _kept(value)}
            combined[name] = weight.detach()
        return combined

    def state(self) -> Parameters:
        """Return the optimiser's tensors, as ``key/parameter``."""
        return {
            f"{key}/{name}": tensor
            for name, tensors in self._state.items()
            for key, tensor in tensors.items()
        }

    def restore(self, state: Parameters) -> None:
        """Go on from an optimiser's tensors."""
        self._state = {}
        for path, tensor in state.items():
            key, _, name = path.partition("/")
            self._state.setdefault(name, {})[key] = tensor.clone()


class DynamicStep:
    """FedDyn's server half (Acar et al. 2021, algorithm 1).

    ``h <- h - alpha * answered * (combined - model)``; the next model is ``combined - h / alpha``.
    With unequal hospitals ``combined`` is their weighted mean, so that the fixed point is the
    optimum of the pooled loss and not of the mean of hospitals.
    """

    def __init__(self, plan: StrategyPlan, trainable: frozenset[str]) -> None:
        self._alpha = plan.options.dynamic_weight
        self._trainable = trainable
        self._drift: Parameters = {}

    def apply(self, model: Model, combined: Parameters, answered: float) -> Parameters:
        """Return the combined model, moved against the drift of all rounds so far."""
        following = dict(combined)
        for name in model:
            if name not in self._trainable:
                continue
            change = (combined[name] - model[name]) * (self._alpha * answered)
            drift = self._drift.get(name, torch.zeros_like(change)) - change
            self._drift[name] = drift
            following[name] = combined[name] - drift / self._alpha
        return following

    def state(self) -> Parameters:
        """Return the drift."""
        return dict(self._drift)

    def restore(self, state: Parameters) -> None:
        """Go on from a drift."""
        self._drift = dict(state)


def _sgd(weights: list[Tensor], plan: StrategyPlan) -> torch.optim.Optimizer:
    return eager_optimisers.SGD(weights, plan.server_learning_rate)


def _momentum(weights: list[Tensor], plan: StrategyPlan) -> torch.optim.Optimizer:
    """FedAvgM: ``v <- beta v + g``, ``x <- x - v`` (Hsu et al. 2019, section 4.3)."""
    return eager_optimisers.SGD(
        weights, plan.server_learning_rate, momentum=plan.options.server_momentum
    )


def _adam(weights: list[Tensor], plan: StrategyPlan) -> torch.optim.Optimizer:
    """FedAdam (Reddi et al. 2021, algorithm 2), with the bias correction of Adam itself."""
    options = plan.options
    return eager_optimisers.Adam(
        weights, plan.server_learning_rate, options.server_betas, options.server_epsilon
    )


def _yogi(weights: list[Tensor], plan: StrategyPlan) -> torch.optim.Optimizer:
    options = plan.options
    return Yogi(weights, plan.server_learning_rate, options.server_betas, options.server_epsilon)


def _adagrad(weights: list[Tensor], plan: StrategyPlan) -> torch.optim.Optimizer:
    """FedAdagrad (Reddi et al. 2021, algorithm 2), whose sum of squares starts at tau squared."""
    epsilon = plan.options.server_epsilon
    return eager_optimisers.Adagrad(
        weights, plan.server_learning_rate, eps=epsilon, initial_accumulator_value=epsilon**2
    )


OPTIMISERS: dict[str, _Build] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "adam": _adam,
    "yogi": _yogi,
    "adagrad": _adagrad,
}


def make_server_step(plan: StrategyPlan, trainable: frozenset[str]) -> ServerStep:
    """Return the plan's server step, with nothing remembered yet."""
    if plan.server_optimiser == "replace":
        return Replace()
    if plan.server_optimiser == "dynamic":
        return DynamicStep(plan, trainable)
    return OptimiserStep(plan.server_optimiser, plan, trainable)


def _kept(value: object) -> bool:
    return isinstance(value, Tensor)
