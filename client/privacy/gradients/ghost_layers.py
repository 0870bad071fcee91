"""How each kind of layer gives one gradient a patient in a single backward pass.

Convolutions and linear layers are watched: the gradient of their output arrives, and with the kept
input it makes the weight's. Normalisations and PReLU get their few parameters once an example, so
that autograd itself keeps the examples apart.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wardround.client.privacy.gradients.patient_batch import PatientIndex
from wardround.client.privacy.gradients.patient_gradients import (
    DeferredGradients,
    KeptGradients,
    PatientGradients,
)
from wardround.client.privacy.gradients.weight_products import (
    ConvolutionProduct,
    Geometry,
    LinearProduct,
    WeightProduct,
    prefers_ghost,
)
from wardround.common.errors import RunError


@dataclass(slots=True)
class Tape:
    """What one forward and backward pass leaves behind.

    Attributes:
        patient_index: Whose the examples are.
        anchor: A number that makes every watched output part of the graph.
        done: The gradients of a layer by its name.
        leaves: A layer's parameters, once an example each, whose ``grad`` autograd fills.
        called: The layers that the forward pass came by.
    """

    patient_index: PatientIndex
    anchor: Tensor = field(default_factory=lambda: torch.zeros((), requires_grad=True))
    done: dict[str, PatientGradients] = field(default_factory=dict)
    leaves: dict[str, dict[str, tuple[Tensor, torch.Size]]] = field(default_factory=dict)
    called: set[str] = field(default_factory=set)

    def enter(self, name: str, inputs: Tensor) -> None:
        """Note that a layer is called.

        Args:
            name: The layer's name in the network.
            inputs: ``(M, ...)``: what the layer is called with.

        Raises:
            RunError: It was called before, or its first axis is not that of the examples.
        """
        if name in self.called:
            msg = f"layer {name} is used twice in one pass, so it cannot train privately."
            raise RunError(msg)
        if len(inputs) != self.patient_index.examples:
            msg = (
                f"layer {name} sees {len(inputs)} rows for {self.patient_index.examples} examples, "
                "so it cannot train privately."
            )
            raise RunError(msg)
        self.called.add(name)

    def per_example(self, name: str, layer: nn.Module, shape: tuple[int, ...]) -> list[Tensor]:
        """Return a layer's parameters, each of ``(M, *shape)`` with its own gradient."""
        copies = (self.patient_index.examples, *(1 for _ in shape))
        made = {
            key: (value.detach().reshape(1, *shape).repeat(copies).requires_grad_(), value.shape)
            for key, value in layer.named_parameters(recurse=False)
        }
        self.leaves[name] = made
        return [leaf for leaf, _ in made.values()]

    def collect(self) -> dict[str, PatientGradients]:
        """Return the gradients of all layers that the loss depends on."""
        for name, leaves in self.leaves.items():
            parts = {
                key: self.patient_index.total(leaf.grad).reshape(-1, *shape)
                for key, (leaf, shape) in leaves.items()
                if leaf.grad is not None
            }
            if parts:
                self.done[name] = KeptGradients(parts)
        return self.done


Rule = Callable[..., Tensor]


class _Watched(torch.autograd.Function):
    """The identity, whose backward pass shows the gradient to somebody.

    In place, so that later changes in place (an activation, a residual sum) stay allowed.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, see: Callable[[Tensor], None]) -> Tensor:
        ctx.see = see
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        ctx.see(gradients[0])
        return gradients[0], None, None


def watch_convolution(tape: Tape, name: str, layer: Any, inputs: Tensor, *sizes: Any) -> Tensor:
    """Run a convolution, transposed or not.

    Args:
        tape: Gets the layer's product for each patient in the backward pass.
        name: The layer's name in the network.
        layer: Any ``nn.Conv`` or ``nn.ConvTranspose``.
        inputs: ``(M, C, *spatial)``.
        sizes: The output sizes of a transposed convolution.

    Returns:
        ``(M, D, *positions)``.
    """
    return _watch(
        tape, name, layer, inputs, partial(_convolution_product, tape.patient_index, layer), *sizes
    )


def watch_linear(tape: Tape, name: str, layer: Any, inputs: Tensor) -> Tensor:
    """Run a linear layer on ``(M, ..., in)``.

    Returns:
        ``(M, ..., out)``.
    """

    def make(inputs: Tensor, gradient: Tensor) -> WeightProduct:
        inputs, gradient = (
            part.reshape(len(part), -1, part.shape[-1]) for part in (inputs, gradient)
        )
        return LinearProduct(tape.patient_index, inputs, gradient)

    return _watch(tape, name, layer, inputs, make)


def spread_group_norm(tape: Tape, name: str, layer: nn.GroupNorm, inputs: Tensor) -> Tensor:
    """Run a group normalisation with a scale and shift an example.

    The examples become channels, of which each has a scale and shift of its own anyway.

    Args:
        inputs: ``(M, C, *spatial)``.

    Returns:
        The shape of ``inputs``.
    """
    tape.enter(name, inputs)
    scale, shift = tape.per_example(name, layer, (layer.num_channels,))
    flat, groups = inputs.reshape(1, -1, *inputs.shape[2:]), len(inputs) * layer.num_groups
    made = torch.group_norm(flat, groups, scale.flatten(), shift.flatten(), layer.eps)
    return _reshaped(made, inputs)


def spread_instance_norm(tape: Tape, name: str, layer: Any, inputs: Tensor) -> Tensor:
    """Run an instance normalisation with a scale and shift an example.

    Args:
        inputs: ``(M, C, *spatial)``.

    Returns:
        The shape of ``inputs``.
    """
    tape.enter(name, inputs)
    scale, shift = tape.per_example(name, layer, (layer.num_features,))
    flat = inputs.reshape(1, -1, *inputs.shape[2:])
    made = torch.batch_norm(
        flat, scale.flatten(), shift.flatten(), None, None, True, 0.0, layer.eps, True
    )
    return _reshaped(made, inputs)


def spread_layer_norm(tape: Tape, name: str, layer: nn.LayerNorm, inputs: Tensor) -> Tensor:
    """Run a layer normalisation with a scale and shift an example.

    Args:
        inputs: ``(M, ..., *normalised)``.

    Returns:
        The shape of ``inputs``.
    """
    tape.enter(name, inputs)
    between = inputs.ndim - 1 - len(layer.normalized_shape)
    parts = tape.per_example(name, layer, (*(1 for _ in range(between)), *layer.normalized_shape))
    made = F.layer_norm(inputs, layer.normalized_shape, eps=layer.eps) * parts[0]
    return made + parts[1] if len(parts) > 1 else made


def spread_prelu(tape: Tape, name: str, layer: nn.PReLU, inputs: Tensor) -> Tensor:
    """Run a PReLU with a slope an example.

    Args:
        inputs: ``(M, C, *spatial)``, ``(M, C)`` or ``(M,)``.

    Returns:
        The shape of ``inputs``.
    """
    tape.enter(name, inputs)
    shape = (layer.num_parameters, *(1 for _ in inputs.shape[2:])) if inputs.ndim > 1 else ()
    (slope,) = tape.per_example(name, layer, shape)
    made: Tensor = torch.ops.aten._prelu_kernel(inputs, slope)
    return made


# By the exact type: a subclass may use its parameters in another way.
RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: watch_linear,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), watch_convolution),
    **dict.fromkeys(
        (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), watch_convolution
    ),
    nn.GroupNorm: spread_group_norm,
    **dict.fromkeys(
        (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), spread_instance_norm
    ),
    nn.LayerNorm: spread_layer_norm,
    nn.PReLU: spread_prelu,
}


def _watch(
    tape: Tape,
    name: str,
    layer: nn.Module,
    inputs: Tensor,
    product_of: Callable[[Tensor, Tensor], WeightProduct],
    *arguments: Any,
) -> Tensor:
    """Run a layer as it is, and turn its output's gradient into its parameters' when it comes."""
    tape.enter(name, inputs)
    kept, version = inputs.detach(), inputs._version

    def see(gradient: Tensor) -> None:
        if kept._version != version:
            msg = f"the input of layer {name} was overwritten, so it cannot train privately."
            raise RunError(msg)
        gradient = gradient.detach()
        biased = getattr(layer, "bias", None) is not None
        tape.done[name] = _layer_gradients(product_of(kept, gradient), gradient, biased)

    output = type(layer).forward(layer, inputs, *arguments)
    watched: Tensor = _Watched.apply(output, tape.anchor, see)  # type: ignore[no-untyped-call] # torch's own
    return watched


def _layer_gradients(work: WeightProduct, gradient: Tensor, biased: bool) -> PatientGradients:
    bias = {"bias": work.patient_index.total(_over_positions(gradient, work))} if biased else {}
    if not prefers_ghost(work):
        return KeptGradients({"weight": work.of_patients(), **bias})
    norms = work.ghost_norms().clamp_(min=0.0)  # below 0 where everything cancels
    makers: dict[str, Callable[[Tensor], Tensor]] = {"weight": work.weighted}
    if biased:
        kept = KeptGradients(bias)
        norms = norms + kept.squared_norms()
        makers["bias"] = lambda coefficients: kept.weighted_sum(coefficients)["bias"]
    return DeferredGradients(norms, work.roundings(), makers)


def _over_positions(gradient: Tensor, work: WeightProduct) -> Tensor:
    """Return ``(M, out)``: the output's gradient summed over all positions of an example."""
    if isinstance(work, LinearProduct):
        return work.gradients.sum(1)
    return gradient.flatten(2).sum(2)


def _convolution_product(
    patient_index: PatientIndex, layer: Any, inputs: Tensor, gradient: Tensor
) -> ConvolutionProduct:
    padding = layer.padding
    if layer.transposed:
        inputs, gradient = gradient, inputs
    elif isinstance(padding, str) or layer.padding_mode != "zeros":
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        inputs = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
        padding = (0,) * len(layer.stride)
    geometry = Geometry(layer.stride, padding, layer.dilation, layer.groups)
    return ConvolutionProduct(patient_index, inputs, gradient, layer.weight.detach(), geometry)


def _reshaped(made: Tensor, like: Tensor) -> Tensor:
    """Return ``made`` in a shape, not as a view: autograd is slow where a view changes in place."""
    reshaped: Tensor = torch.ops.aten._unsafe_view(made, like.shape)
    return reshaped
