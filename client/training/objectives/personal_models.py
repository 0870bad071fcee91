"""Objectives with a personal model beside the shared one: Ditto and APFL.

The personal model makes one step on each batch that the shared model makes one on, so a round costs
twice the computation. The shared model is trained as by FedAvg.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call

from wardround.client.data.batch import Batch
from wardround.client.training.objectives.base import LocalStart
from wardround.client.training.optimisers import (
    build_optimiser,
    set_learning_rate,
)
from wardround.client.training.schedule import mixed_precision
from wardround.common.parameters.schema import (
    Parameters,
    prefixed,
    read_parameters,
    under,
    write_parameters,
)
from wardround.common.study.plans.learning_rate import learning_rate_at

PERSONAL_MODEL = "personal-model/"


class _PersonalModel:
    """A personal copy of the network with an optimiser of its own, made anew each round."""

    def __init__(self, start: LocalStart) -> None:
        self._start = start
        self.network = copy.deepcopy(start.network)
        write_parameters(self.network, {**start.parameters, **under(PERSONAL_MODEL, start.memory)})
        self.network.train()
        self._optimiser = build_optimiser(self.network, start.training)
        self._done = 0

    def step(self) -> None:
        """Make a step along the personal model's gradients, at the study's learning rate."""
        training = self._start.training
        rate = learning_rate_at(training, self._start.position.at(self._done))
        set_learning_rate(self._optimiser, rate)
        if training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), training.gradient_clip)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self._done += 1

    def memory(self) -> Parameters:
        """Return the personal model's numbers, without those that never change."""
        mutable = self._start.layout.mutable_part(read_parameters(self.network))
        return prefixed(PERSONAL_MODEL, mutable)


class PersonalModel:
    """Ditto (Li et al. 2021, ICML, algorithm 1): ``v <- v - eta (grad F(v) + lambda (v - x))``.

    ``x`` is the received model. With lambda 0 the personal model is that of a site alone.
    """

    def __init__(self, start: LocalStart) -> None:
        self._start = start
        self._personal_model = _PersonalModel(start)
        received = [weight.detach().clone() for weight in start.network.parameters()]
        self._pulled = list(zip(self._personal_model.network.parameters(), received, strict=True))
        self._batch: Batch | None = None

    def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
        """Return the loss, a scalar: the shared model is trained as it would be without a twin."""
        self._batch = batch
        return loss

    def correct(self) -> None:
        """Make the personal model's step on the same batch."""
        if self._batch is None:
            return
        with mixed_precision(self._start.training, self._batch.targets.device):
            logits = self._personal_model.network(*self._batch.inputs)
            value = self._start.loss(logits, self._batch.targets)
        value.backward()  # type: ignore[no-untyped-call] # torch's own
        with torch.no_grad():
            for weight, received in self._pulled:
                if weight.grad is not None:
                    weight.grad.add_(
                        weight - received, alpha=self._start.plan.options.personal_weight
                    )
        self._personal_model.step()

    def memory(self) -> Parameters:
        """Return the personal model."""
        return self._personal_model.memory()

    def auxiliary(self) -> Parameters:
        """Return nothing: the personal model does not leave the site."""
        return {}


class Mixture:
    """APFL (Deng et al. 2020, algorithm 1): the personal model is ``alpha v + (1 - alpha) w``.

    ``w`` makes its own step; ``v`` one along the gradient, with respect to ``v``, of the mixture's
    loss at the ``w`` before that step. ``alpha`` is fixed.
    """

    def __init__(self, start: LocalStart) -> None:
        self._start = start
        self._personal_model = _PersonalModel(start)
        self._batch: Batch | None = None

    def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
        """Return the loss, a scalar: the shared model is trained as it would be without a twin."""
        self._batch = batch
        return loss

    def correct(self) -> None:
        """Make the personal model's step on the same batch."""
        if self._batch is None:
            return
        alpha, shared = self._start.plan.options.mixture, self._start.network
        mixed = {
            name: own * alpha + weight.detach() * (1 - alpha)
            for (name, own), (_, weight) in zip(
                _by_place(self._personal_model.network), _by_place(shared), strict=True
            )
            if own.requires_grad
        }
        with mixed_precision(self._start.training, self._batch.targets.device):
            # Not tied by torch, which would not give back a layer that is in several places.
            logits = functional_call(
                self._personal_model.network, mixed, self._batch.inputs, tie_weights=False
            )
            value = self._start.loss(logits, self._batch.targets)
        value.backward()  # type: ignore[no-untyped-call] # torch's own
        self._personal_model.step()

    def memory(self) -> Parameters:
        """Return the personal part ``v``."""
        return self._personal_model.memory()

    def auxiliary(self) -> Parameters:
        """Return nothing: the personal model does not leave the site."""
        return {}


def _by_place(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the weights by name, those of a layer that is in several places once."""
    for prefix, layer in network.named_modules():
        yield from layer.named_parameters(prefix, recurse=False)


def mix(own: Parameters, received: Parameters, alpha: float) -> Parameters:
    """Return ``alpha * own + (1 - alpha) * received``; what is not a float is the site's own."""
    return {
        name: tensor * alpha + received[name] * (1 - alpha)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in own.items()
    }
