"""One process's share of a step: its rows through the network, and what of them it adds to a sum.

What :class:`torch.nn.parallel.DistributedDataParallel` does, with two differences. The loss is
computed once, of all examples, by the process that holds them: so it may be any function of a
batch, and shares may be uneven. And normalisation over the batch is over the whole batch, on CPUs
too, where torch's SyncBatchNorm refuses to work.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten

from wardround.client.session.parallel.exchange import Exchange
from wardround.common.models.sharing import trained_parameters

_BatchNorm = nn.modules.batchnorm._BatchNorm


def share_sizes(examples: int, size: int) -> list[int]:
    """Return how many examples each process has: as equal as can be, the first ones more."""
    return [examples // size + (rank < examples % size) for rank in range(size)]


def shared_numbers(network: nn.Module) -> list[Tensor]:
    """Return what of a network a step reads: its parameters, and buffers that are no counts."""
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    return [*network.parameters(), *buffers]


class NetworkShare:
    """A process's rows in the network, from the forward pass to the gradients.

    Args:
        network: In training mode, on the process's device.
    """

    def __init__(self, network: nn.Module, exchange: Exchange) -> None:
        self._network, self._exchange = network, exchange
        self._outputs: list[Tensor] = []

    def forward(self, inputs: Sequence[Tensor], is_present: bool = True) -> TreeSpec:
        """Run the network on rows; keep what it returns.

        Args:
            inputs: ``(m, ...)`` each, at least one row.
            is_present: Whether they count; where there are fewer examples than processes, some
                run an example that another has, since all take part in each sum.

        Returns:
            The form of what the network returns.
        """
        with _normalised_together(self._network, self._exchange, is_present), torch.enable_grad():
            flat, form = tree_flatten(self._network(*inputs))
        self._outputs = list(flat)
        return form

    @property
    def outputs(self) -> list[Tensor]:
        """What the network returned, ``(m, ...)`` each, without its graph."""
        return [output.detach() for output in self._outputs]

    def gradients(self, along: Sequence[Tensor]) -> list[Tensor | None]:
        """Return the sum over all processes of their parameters' gradients.

        Args:
            along: The gradient of each output, ``(m, ...)``; zeros where the rows do not count.

        Returns:
            One a trained parameter; None where no output depends on it.
        """
        weights = list(trained_parameters(self._network).values())
        # Kept, so that a loss whose scale was too large can be differentiated again.
        found = torch.autograd.grad(
            self._outputs, weights, list(along), retain_graph=True, allow_unused=True
        )
        used = [part.contiguous() for part in found if part is not None]
        self._exchange.add_up(used)
        summed = iter(used)
        return [None if part is None else next(summed) for part in found]


@contextmanager
def _normalised_together(
    network: nn.Module, exchange: Exchange, is_present: bool
) -> Iterator[None]:
    """Have batch normalisations take their statistics from the rows of all processes."""
    layers = [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]
    try:
        for layer in layers:
            layer.forward = partial(_batch_norm, layer, exchange, is_present)  # type: ignore[method-assign] # put back below
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


class _Summed(torch.autograd.Function):
    """The sum over all processes; each gets the sum of the gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, exchange: Exchange) -> Tensor:
        ctx.exchange = exchange
        total = value.clone()
        exchange.add_up([total])
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        total = gradients[0].clone()
        ctx.exchange.add_up([total])
        return total, None


def _batch_norm(layer: _BatchNorm, exchange: Exchange, is_present: bool, inputs: Tensor) -> Tensor:
    """Normalise ``(m, C, ...)`` by the rows of all processes (Ioffe and Szegedy 2015)."""
    if not layer.training:
        evaluated: Tensor = type(layer).forward(layer, inputs)
        return evaluated
    values = inputs.float()
    dims = (0, *range(2, inputs.ndim))
    view = (1, -1, *(1,) * (inputs.ndim - 2))
    share = 1.0 if is_present else 0.0
    own = torch.full((1,), share * values.numel() / values.shape[1], device=values.device)
    exchange.add_up([own])
    count = float(own)
    mean = _Summed.apply(values.sum(dims) * share, exchange) / count  # type: ignore[no-untyped-call] # torch's own
    apart = values - mean.view(view)
    spread = _Summed.apply(apart.square().sum(dims) * share, exchange) / count  # type: ignore[no-untyped-call] # torch's own
    _keep_statistics(layer, mean.detach(), spread.detach() * (count / max(count - 1, 1)))
    result = apart * torch.rsqrt(spread + layer.eps).view(view)
    if layer.affine:
        result = result * layer.weight.view(view) + layer.bias.view(view)
    made: Tensor = result.to(inputs.dtype)
    return made


@torch.no_grad()
def _keep_statistics(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if not layer.track_running_stats or layer.running_mean is None or layer.running_var is None:
        return
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
    momentum = layer.momentum
    if momentum is None:
        momentum = 1.0 / float(layer.num_batches_tracked or 1)
    layer.running_mean.lerp_(mean, momentum)
    layer.running_var.lerp_(variance, momentum)
