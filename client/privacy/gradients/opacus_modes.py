"""Clipped gradients by Opacus: a gradient an example from its layers' own rules, summed by patient.

For networks with layers that ghost clipping has no rule for: embeddings, attention, recurrence,
parameters that belong to a module of somebody's own. Opacus (Yousefpour et al. 2021) clips by
example; here the gradients of a patient's examples are added first, and the patient is clipped.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from wardround.client.privacy.gradients.loop import PerSampleLoss
from wardround.client.privacy.gradients.patient_batch import (
    PatientBatch,
    PatientIndex,
    patient_losses,
)
from wardround.client.privacy.gradients.patient_gradients import KeptGradients, squared_lengths
from wardround.client.training.schedule import is_full
from wardround.common.errors import RunError
from wardround.common.models.private_layers import require_opacus
from wardround.common.models.sharing import trained_parameters

# Those whose sum is held against autograd's in each pass stand first; of them the faster.
OPACUS_MODES = ("hooks", "functorch", "ew")
_OTHERWISE = "set privacy.gradients = 'loop', or model.fixer = 'opacus' for layers that it replaces"
_APART = 1e-3  # of the lengths that are added: beyond it a gradient is not what was recorded
_APART_OF_ALL = 1e-5  # the same, of the lengths of all parameters: what rounding leaves of zeros
_Run = Callable[..., Tensor]


def opacus_clipped_sum(
    network: nn.Module,
    piece: PatientBatch,
    per_sample_loss: PerSampleLoss,
    clip_norm: float,
    *,
    mode: str,
    refuses: bool = False,
) -> dict[str, Tensor] | None:
    """Return ``sum_p min(1, C / |g_p|) g_p``, or None if that is not what would be summed.

    That is so if a patient's gradient is not finite, or if the recorded gradients do not add up to
    the one that autograd finds in the same pass: then some use of a parameter was not recorded.

    Args:
        mode: One of :data:`OPACUS_MODES`: how Opacus finds the gradients of an example.
        refuses: Whether a parameter whose gradients do not add up is a reason to refuse.

    Raises:
        RunError: Opacus has no gradient for some parameter, which is named.
    """
    weights = trained_parameters(network)
    with _kept_gradients(weights), _recording(network, mode) as run, torch.enable_grad():
        patient_losses(run, piece, per_sample_loss).sum().backward()  # type: ignore[no-untyped-call] # torch's own
        samples, whole = _samples(weights, len(piece.examples)), _whole(weights)
    if not samples:
        return {}
    off = _unrecorded(samples, whole)
    if off and refuses:
        msg = (
            f"parameter {off[0]} has gradients of examples that do not add up to its own: it is "
            f"used where Opacus ({mode}) records nothing, or its layer's rule is wrong: "
            f"{_OTHERWISE}."
        )
        raise RunError(msg)
    if off:
        return None
    index = PatientIndex(piece.counts)
    patients = KeptGradients({name: index.total(part) for name, part in samples.items()})
    squared = patients.squared_norms()
    if not bool(torch.isfinite(squared.float()).all()):
        return None
    return patients.weighted_sum((clip_norm / squared.sqrt()).clamp_(max=1.0))


METHODS_OF_OPACUS = {
    f"opacus-{mode}": partial(opacus_clipped_sum, mode=mode) for mode in OPACUS_MODES
}


@contextmanager
def _kept_gradients(weights: dict[str, Tensor]) -> Iterator[None]:
    """Leave the parameters' ``grad`` as it was, and nothing of Opacus's on them."""
    before = {name: weight.grad for name, weight in weights.items()}
    try:
        for weight in weights.values():
            weight.grad = None
        yield
    finally:
        for name, weight in weights.items():
            weight.grad = before[name]
            for key in ("grad_sample", "_current_grad_sample", "_forward_counter"):
                weight.__dict__.pop(key, None)


@contextmanager
def _recording(network: nn.Module, mode: str) -> Iterator[_Run]:
    """Yield a function that runs the network and leaves each example's gradient behind.

    Raises:
        RunError: Opacus refuses the network, or fails in it.
    """
    require_opacus("privacy.gradients = 'opacus'")
    recorded: Any = None
    try:
        with _out_of_place(network), warnings.catch_warnings():
            # Images take no gradient, which torch says of each network's first layer.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            # Nor has an index the precision of an image, which Opacus makes torch say.
            warnings.filterwarnings("ignore", message="In CPU autocast")
            recorded = _recorder(network, mode)
            yield recorded
    except (NotImplementedError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or is_full(error):
            raise
        msg = (
            f"Opacus ({mode}) finds no gradient of a single patient in this network "
            f"({type(error).__name__}): {_OTHERWISE}."
        )
        raise RunError(msg) from error
    finally:
        if recorded is not None:
            recorded.remove_hooks()
        for layer in network.modules():
            for key in ("activations", "max_batch_len", "ft_compute_sample_grad"):
                layer.__dict__.pop(key, None)
            layer.__dict__.pop("autograd_grad_sample_hooks", None)


def _recorder(network: nn.Module, mode: str) -> Any:
    from opacus.grad_sample import GradSampleModule, GradSampleModuleExpandedWeights

    if mode == "ew":
        return GradSampleModuleExpandedWeights(network, loss_reduction="sum")
    return GradSampleModule(network, loss_reduction="sum", force_functorch=mode == "functorch")


@contextmanager
def _out_of_place(network: nn.Module) -> Iterator[None]:
    """Have activations make new tensors: the same numbers, and what was recorded stays."""
    changed = [layer for layer in network.modules() if getattr(layer, "inplace", False) is True]
    try:
        for layer in changed:
            layer.inplace = False  # type: ignore[assignment] # torch types it a module
        yield
    finally:
        for layer in changed:
            layer.inplace = True  # type: ignore[assignment] # torch types it a module


def _samples(weights: dict[str, Tensor], examples: int) -> dict[str, Tensor]:
    """Return ``(M, *shape)``, the gradient of each example, of the parameters that have one.

    Raises:
        RunError: A parameter has a gradient, and none an example.
    """
    found = {}
    for name, weight in weights.items():
        part = getattr(weight, "grad_sample", None)
        if part is None and weight.grad is None:
            continue  # the loss does not depend on it
        if not isinstance(part, Tensor):
            msg = (
                f"parameter {name} has a gradient that Opacus does not find for each example (a "
                f"parameter used outside its layer, or a layer used again): {_OTHERWISE}."
            )
            raise RunError(msg)
        if part.shape != (examples, *weight.shape):
            msg = (
                f"parameter {name} has gradients of {len(part)} rows for {examples} examples, so "
                f"they are not those of single patients: {_OTHERWISE}."
            )
            raise RunError(msg)
        found[name] = part.detach()
    return found


def _whole(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.grad for name, weight in weights.items() if weight.grad is not None}


def _unrecorded(samples: dict[str, Tensor], whole: dict[str, Tensor]) -> list[str]:
    """Return the parameters whose examples do not add up to the gradient of the same pass.

    Opacus's expanded weights leave no such gradient; they refuse what they cannot record.
    """
    checked = [name for name in samples if name in whole]
    if not checked:
        return []
    spread = torch.stack([squared_lengths(samples[name]).sqrt().sum() for name in checked])
    gaps = torch.stack(
        [squared_lengths((samples[name].sum(0) - whole[name])[None]).sqrt()[0] for name in checked]
    )
    most = _APART * spread + _APART_OF_ALL * torch.linalg.vector_norm(spread)
    # "not" so that a gap that is no number counts as too large. Asked once: a GPU is waited for.
    return [name for name, fits in zip(checked, (gaps <= most).tolist(), strict=True) if not fits]
