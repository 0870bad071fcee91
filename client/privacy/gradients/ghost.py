"""Clipped gradients by one forward and one backward pass for all patients of a piece.

Mixed ghost clipping (Bu et al. 2022, "Scalable and efficient training of large convolutional neural
networks with differential privacy") with book-keeping (Bu et al. 2023, "Differentially private
optimization on large model at small cost"): the pass leaves each layer's patient gradients, or its
input and its output's gradient; the norms come from those, and so does the clipped sum.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from wardround.client.privacy.gradients.ghost_layers import RULES, Tape
from wardround.client.privacy.gradients.loop import PerSampleLoss
from wardround.client.privacy.gradients.patient_batch import (
    PatientBatch,
    PatientIndex,
    patient_losses,
)
from wardround.client.privacy.gradients.patient_gradients import Roundings
from wardround.common.errors import RunError

MOST_ROUNDING = 1e-3  # of the clip norm


def ghost_clipped_sum(
    network: nn.Module, piece: PatientBatch, per_sample_loss: PerSampleLoss, clip_norm: float
) -> dict[str, Tensor] | None:
    """Return ``sum_p min(1, C / ||g_p||) g_p``, or None if that is not what would be summed.

    That is so if a patient's gradient is not finite, or if its terms cancel so far that rounding
    makes up more than :data:`MOST_ROUNDING` of the clip norm: whoever chooses the weights can make
    the norm as small beside it as he likes.

    Raises:
        RunError: A layer has no rule, or is used in a way that its rule does not cover.
    """
    layers = _trainable_layers(network)
    tape = Tape(PatientIndex(piece.counts))
    with _recording(layers, tape), torch.enable_grad():
        patient_losses(network, piece, per_sample_loss).sum().backward()  # type: ignore[no-untyped-call] # torch's own
    gradients = tape.collect()
    if not gradients:
        return {}
    squared = torch.stack([part.squared_norms() for part in gradients.values()]).sum(0)
    # In float32, as the loop has it: both methods leave out the same patients.
    finite = torch.isfinite(squared.float())
    coefficients = (clip_norm / squared.sqrt()).clamp_(max=1.0)
    off = Roundings.together([part.roundings() for part in gradients.values()]).reach(squared)
    # Where the terms of a gradient cancel, its norm says nothing of the rounding that is summed.
    # "not" so that a bound that is no number counts as too large.
    fits = coefficients * off <= MOST_ROUNDING * clip_norm
    if not bool((finite & fits).all()):  # asked once: a GPU is waited for
        return None
    return {
        f"{name}.{key}" if name else key: total
        for name, part in gradients.items()
        for key, total in part.weighted_sum(coefficients).items()
    }


def _trainable_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that hold the trainable parameters.

    Raises:
        RunError: A parameter is shared or half a layer is frozen, or a layer has no rule.
    """
    layers = dict(network.named_modules())
    uses = Counter(id(p) for layer in layers.values() for p in _own_parameters(layer))
    found = {}
    for name, layer in layers.items():
        own = _own_parameters(layer)
        trainable = [p for p in own if p.requires_grad]
        if not trainable:
            continue
        shared = any(uses[id(p)] > 1 for p in trainable)
        if type(layer) not in RULES or shared or len(trainable) < len(own) or _has_buffers(layer):
            msg = (
                f"layer {name or 'at the top'} of type {type(layer).__name__} has no rule for its "
                "gradients by patient: set privacy.gradients = 'loop'."
            )
            raise RunError(msg)
        found[name] = layer
    return found


def _own_parameters(layer: nn.Module) -> list[nn.Parameter]:
    # layer.parameters() takes a tenth of a small network's step.
    return [parameter for parameter in layer._parameters.values() if parameter is not None]


def _has_buffers(layer: nn.Module) -> bool:
    return any(buffer is not None for buffer in layer._buffers.values())


@contextmanager
def _recording(layers: dict[str, nn.Module], tape: Tape) -> Iterator[None]:
    """Let the layers write on the tape; their weights take no part in the backward pass."""
    try:
        for name, layer in layers.items():
            for parameter in _own_parameters(layer):
                parameter.requires_grad_(False)
            layer.forward = partial(RULES[type(layer)], tape, name, layer)
        yield
    finally:
        for layer in layers.values():
            layer.__dict__.pop("forward", None)
            for parameter in _own_parameters(layer):
                parameter.requires_grad_(True)
