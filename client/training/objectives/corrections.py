"""Objectives that add to the gradient: proximal, control variates, dynamic regularisation.

Each adds the exact gradient of its term, which is cheaper than differentiating the term.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.schedule import SchedulePosition
from wardround.common.models.sharing import CONTROL
from wardround.common.parameters.schema import Parameters, prefixed, under
from wardround.common.study.plans.learning_rate import learning_rate_at
from wardround.common.study.sections.training import TrainingSection

_DYNAMIC = "dynamic/"


@dataclass(frozen=True, slots=True, eq=False)
class LinearCorrection:
    """What an objective adds to the gradients: ``pull (w - w_received) + constant``.

    Attributes:
        names: The parameters that it is about.
        constants: By name, each in its parameter's shape; where there is none, 0.
    """

    names: frozenset[str]
    pull: float
    constants: Mapping[str, Tensor] = field(default_factory=dict)


class Proximal:
    """FedProx: ``mu / 2 |w - w_received|^2`` (Li et al. 2020, equation 2)."""

    def __init__(self, start: LocalStart) -> None:
        self._weight = start.plan.options.proximal_weight
        self._pulled = [(w, w.detach().clone()) for _, w in start.shared_weights()]

    def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
        """Return the loss, a scalar: the term enters as its gradient."""
        return loss

    @torch.no_grad()
    def correct(self) -> None:
        """Add ``mu (w - w_received)``."""
        for weight, anchor in self._pulled:
            if weight.grad is not None:
                weight.grad.add_(weight - anchor, alpha=self._weight)

    def memory(self) -> Parameters:
        """Return nothing."""
        return {}

    def auxiliary(self) -> Parameters:
        """Return nothing."""
        return {}


class ControlVariates:
    """SCAFFOLD's local half (Karimireddy et al. 2020, algorithm 1, option II).

    Each gradient is corrected by ``c - c_i``. Afterwards ``c_i <- c_i - c + (x - y) / A``, where
    ``A`` is ``K eta`` in the paper and here the sum of what each gradient contributed, so that it
    holds for a learning rate that changes and for momentum too. Needs SGD.
    """

    def __init__(self, start: LocalStart) -> None:
        self._start = start
        common, own = under(CONTROL, start.auxiliary), under(CONTROL, start.memory)
        self._common = common
        self._own = {n: own.get(n, torch.zeros_like(common[n])) for n in common}
        self._corrected = [
            (weight, (common[name] - self._own[name]).to(weight.device))
            for name, weight in start.shared_weights()
        ]
        self._renewed: Parameters = {}

    def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
        """Return the loss, a scalar: the correction is one of gradients."""
        return loss

    @torch.no_grad()
    def correct(self) -> None:
        """Add ``c - c_i``."""
        for weight, correction in self._corrected:
            if weight.grad is not None:
                weight.grad.add_(correction)

    def memory(self) -> Parameters:
        """Return the site's new control variate."""
        return prefixed(CONTROL, self._renew())

    def auxiliary(self) -> Parameters:
        """Return how the site's control variate changed."""
        renewed = self._renew()
        return {CONTROL + name: renewed[name] - self._own[name] for name in self._own}

    def _renew(self) -> Parameters:
        if not self._renewed:
            walked = gradient_weight(self._start.training, self._start.position)
            trained = _weights(self._start.network)
            for name, own in self._own.items():
                if not walked:  # a round at learning rate 0, within a warm-up: nothing was learnt
                    self._renewed[name] = own
                    continue
                distance = self._start.parameters[name] - trained[name]
                self._renewed[name] = own - self._common[name] + distance / walked
        return self._renewed


class Dynamic:
    """FedDyn's local half (Acar et al. 2021, algorithm 1): ``- <h_k, w> + alpha / 2 |w - x|^2``.

    ``h_k``, the site's gradient at its last optimum, then becomes ``h_k - alpha (w - x)``.
    """

    def __init__(self, start: LocalStart) -> None:
        self._start = start
        self._weight = start.plan.options.dynamic_weight
        kept = under(_DYNAMIC, start.memory)
        self._corrected = [
            (
                weight,
                weight.detach().clone(),
                kept[name].to(weight.device) if name in kept else torch.zeros_like(weight),
            )
            for name, weight in start.shared_weights()
        ]

    def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
        """Return the loss, a scalar: the terms enter as their gradients."""
        return loss

    @torch.no_grad()
    def correct(self) -> None:
        """Add ``alpha (w - x) - h_k``."""
        for weight, anchor, linear in self._corrected:
            if weight.grad is not None:
                weight.grad.add_(weight - anchor, alpha=self._weight).sub_(linear)

    @torch.no_grad()
    def memory(self) -> Parameters:
        """Return the site's gradient at its new optimum."""
        names = (name for name, _ in self._start.shared_weights())
        return {
            _DYNAMIC + name: (linear - (weight - anchor) * self._weight).cpu()
            for name, (weight, anchor, linear) in zip(names, self._corrected, strict=True)
        }

    def auxiliary(self) -> Parameters:
        """Return nothing: the server sees the drift in the models themselves."""
        return {}


def linear_correction(start: LocalStart) -> LinearCorrection | None:
    """Return what the plan's objective adds to the gradients, where that is all it does.

    Of the objectives of this file, each as its ``correct`` has it; None of the others.
    """
    names, options = frozenset(name for name, _ in start.shared_weights()), start.plan.options
    if start.plan.objective == "proximal":
        return LinearCorrection(names, options.proximal_weight)
    if start.plan.objective == "dynamic":
        kept = under(_DYNAMIC, start.memory)
        zeros = {n: torch.zeros_like(start.parameters[n]) for n in names}
        return LinearCorrection(
            names, options.dynamic_weight, {n: -kept.get(n, zeros[n]) for n in names}
        )
    if start.plan.objective == "control-variates":
        common, own = under(CONTROL, start.auxiliary), under(CONTROL, start.memory)
        return LinearCorrection(
            names, 0.0, {n: common[n] - own[n] if n in own else common[n] for n in names}
        )
    return None


def gradient_weight(training: TrainingSection, position: SchedulePosition) -> float:
    """Return how far SGD walks along a gradient that stays the same through a round.

    ``sum_k eta_k (1 - rho^(k+1)) / (1 - rho)`` over steps k with momentum rho; ``K eta`` without.
    """
    rates = (learning_rate_at(training, position.at(step)) for step in range(position.steps))
    rho = training.momentum
    return sum(rate * (1 - rho ** (step + 1)) / (1 - rho) for step, rate in enumerate(rates))


def _weights(network: nn.Module) -> Parameters:
    return {
        name: weight.detach().cpu()
        for name, weight in network.named_parameters(remove_duplicate=False)
    }
