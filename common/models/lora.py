"""What of a network is frozen: all beneath LoRA's small additions, or what patterns name.

The package peft offers more, and brings transformers, tokenizers and accelerate with it.
"""

import math
from collections.abc import Collection, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wardround.common.errors import ModelError, StudyError
from wardround.common.parameters.schema import select

# MONAI's name of the part that holds a linear layer, in both its transformers; the linear layers
# outside (a head, Swin's patch merging) are left alone.
_ADAPTED_PARTS = ("attn", "mlp")


class AdaptedLinear(nn.Linear):
    """A frozen linear layer and a trainable product of two thin matrices (Hu et al. 2021, eq. 3).

    ``W x + b + scale * B A x``, with ``A (rank, in)`` Gaussian and ``B (out, rank)`` zero, so that
    it starts as the layer it replaces. ``scale`` is the paper's alpha / r. ``W`` and ``b`` keep
    their names. The deviation of ``A``, which the paper leaves open, is ``in ** -0.5``.
    """

    def __init__(self, layer: nn.Linear, rank: int, scale: float) -> None:
        width, outputs = layer.in_features, layer.out_features
        super().__init__(width, outputs, bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.scale = scale
        self.lora_a = nn.Parameter(torch.randn(rank, width) / math.sqrt(width))
        self.lora_b = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 # the name that nn.Linear gives it
        """Return ``(..., out)`` of ``(..., in)``."""
        low_rank = F.linear(F.linear(input, self.lora_a), self.lora_b)
        return super().forward(input) + self.scale * low_rank


def add_adapters(network: nn.Module, rank: int, scale: float, heads: Collection[str]) -> None:
    """Freeze a network in place, but for its heads, and adapt its attention and MLP layers.

    Args:
        rank: Rank of each addition.
        scale: The paper's alpha / r.
        heads: Names of the parameters that stay trainable.

    Raises:
        StudyError: A layer is narrower than the rank, or there is none to adapt.
    """
    layers = [
        (name, layer)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear) and _holder(name) in _ADAPTED_PARTS
    ]
    if not layers:
        msg = "this network has no attention or MLP layer to adapt: remove model.adapter_rank."
        raise StudyError(msg)
    narrowest = min(min(layer.in_features, layer.out_features) for _, layer in layers)
    if rank > narrowest:
        msg = (
            f"model.adapter_rank = {rank} is more than the {narrowest} values of this network's "
            f"narrowest layer, which saves nothing: use {max(1, narrowest // 2)} or less."
        )
        raise StudyError(msg)
    for name, weight in network.named_parameters():
        weight.requires_grad_(name in heads)
    for name, layer in layers:
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, AdaptedLinear(layer, rank, scale))


def merge_adapters(network: nn.Module) -> None:
    """Put each adapter's product into the layer that it lies on, in place: ``W + scale * B A``.

    The network answers as before, up to rounding, and has the names and shapes of one without
    adapters: any program can load it.
    """
    for name, layer in [*network.named_modules()]:
        if not isinstance(layer, AdaptedLinear):
            continue
        merged = nn.Linear(
            layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta"
        )
        product = layer.scale * (layer.lora_b.double() @ layer.lora_a.double())
        total = (layer.weight.double() + product).to(layer.weight.dtype)
        merged.weight, merged.bias = nn.Parameter(total.detach()), layer.bias
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, merged.train(layer.training))


def freeze(network: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the numbers of a network whose names match, in place.

    A batch normalisation that is frozen as a whole keeps its running means too, and uses them.

    Raises:
        StudyError: A pattern matches nothing, all would be frozen, or a part of a batch
            normalisation, which would change by what it sees all the same.
    """
    try:
        names = select(tuple(network.state_dict()), patterns)
    except ModelError as error:
        msg = f"model.frozen: {error}"
        raise StudyError(msg) from None
    chosen = frozenset(names)
    for prefix, layer in network.named_modules():
        frozen_type = _FROZEN_TYPES.get(type(layer))
        own = set(layer.state_dict(prefix=f"{prefix}.")) if frozen_type else set()
        if frozen_type is None or not own & chosen:
            continue
        if not own <= chosen:
            msg = (
                f"model.frozen matches a part of the batch normalisation {prefix!r}, whose running "
                f"means would change all the same: match all of it, e.g. {prefix + '.*'!r}."
            )
            raise StudyError(msg)
        layer.__class__ = frozen_type
        layer.eval()
    for name, weight in network.named_parameters(remove_duplicate=False):
        if name in chosen:
            weight.requires_grad_(False)
    if not any(weight.requires_grad for weight in network.parameters()):
        msg = "model.frozen leaves nothing to train: freeze less."
        raise StudyError(msg)
    network.frozen_by_study = names  # type: ignore[assignment] # torch types it a module


class _FrozenBatchNorm1d(nn.BatchNorm1d):
    def train(self, mode: bool = True) -> Self:
        return super().train(False)


class _FrozenBatchNorm2d(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> Self:
        return super().train(False)


class _FrozenBatchNorm3d(nn.BatchNorm3d):
    def train(self, mode: bool = True) -> Self:
        return super().train(False)


_FROZEN_TYPES: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _FrozenBatchNorm1d,
    nn.BatchNorm2d: _FrozenBatchNorm2d,
    nn.BatchNorm3d: _FrozenBatchNorm3d,
}


def frozen_names(network: nn.Module) -> tuple[str, ...]:
    """Return the names of all numbers that never change; none where nothing is frozen."""
    chosen = getattr(network, "frozen_by_study", ())
    if chosen:
        return tuple(name for name in network.state_dict() if name in set(chosen))
    if not any(isinstance(layer, AdaptedLinear) for layer in network.modules()):
        return ()
    weights = network.named_parameters(remove_duplicate=False)
    trainable = {name for name, weight in weights if weight.requires_grad}
    return tuple(name for name in network.state_dict() if name not in trainable)


def fingerprint(network: nn.Module) -> float:
    """Return a number that tells one frozen base from another; 0 where nothing is frozen.

    A weighted sum and no hash: processors round the last digit of a random draw differently, which
    does no harm, while another version of torch or MONAI may draw other weights, which does.
    """
    state = network.state_dict()
    total = 0.0
    for name in frozen_names(network):
        values = state[name].detach().cpu().double().reshape(-1)
        total += float(values @ torch.arange(len(values), dtype=torch.float64).add_(1).cos_())
    return total


def _holder(name: str) -> str:
    return name.rpartition(".")[0].rpartition(".")[2]
