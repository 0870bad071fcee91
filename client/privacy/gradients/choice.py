"""Which way of finding a single patient's gradient a study takes; a new network's is tried first.

For a network that no table knows, each of Opacus's ways is held against one backward pass a
patient, on made-up images and with weights moved at random. A network that mixes the examples of a
batch, or uses a parameter where nothing records it, differs there and is refused.
"""

import copy
import logging

import torch
from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.privacy.gradients.loop import loop_clipped_sum
from wardround.client.privacy.gradients.opacus_modes import OPACUS_MODES, opacus_clipped_sum
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.common.errors import RunError, StudyError
from wardround.common.models.private_layers import refused_layers, require_opacus
from wardround.common.parameters.schema import Parameters
from wardround.common.study.plans.gradients import OPACUS, gradient_method
from wardround.common.study.study import Study

logger = logging.getLogger(__name__)

MOST_APART = 1e-6  # of the sum's length, in double precision
_COUNTS = (2, 1, 1)  # examples of each made-up patient
_MOVED = 0.05  # a zero of the first weights would hide a path
_SEEDS = (11, 12)
_chosen: dict[str, str] = {}  # by the digest of a study, which fixes the network


def exact_method(study: Study, network: nn.Module) -> str:
    """Return a name of ``METHODS`` for a private study; the first time, write it to the log.

    Raises:
        RunError: The network is one of somebody's own, and no way of Opacus is exact for it.
        StudyError: Nothing is verified for the network, or Opacus is not installed.
    """
    if study.digest in _chosen:
        return _chosen[study.digest]
    try:
        method = gradient_method(study)
    except KeyError:
        name = study.model.network
        msg = f"model.network = {name!r} has no verified gradient: set privacy.gradients = 'loop'."
        raise StudyError(msg) from None
    if method.startswith(OPACUS):
        require_opacus("privacy.gradients = 'opacus'")
    if method == OPACUS:
        device = next(network.parameters()).device
        method = verified_mode(network, tuple(part.to(device) for part in _made_up(study)))
    if method == "ghost" and has_half_frozen_layer(network):
        method = "loop"  # ghost clipping takes a layer as a whole
    asked = study.privacy.gradients
    logger.info("gradients=%s asked=%s network=%s", method, asked, study.model.network)
    _chosen[study.digest] = method
    return method


def has_half_frozen_layer(network: nn.Module) -> bool:
    """Return whether a layer learns some of its numbers and keeps others: ``model.frozen``."""
    for layer in network.modules():
        learns = [weight.requires_grad for weight in layer.parameters(recurse=False)]
        if any(learns) and not all(learns):
            return True
    return False


def verified_mode(network: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """Return the first of Opacus's ways that gives the sums of one backward pass a patient.

    Args:
        network: In training mode; it is copied, and stays as it is.
        inputs: ``(4, ...)`` each, made up; the examples of three patients.

    Raises:
        RunError: None does; says what is wrong.
    """
    refused = refused_layers(network)
    if refused:
        msg = (
            f"Opacus refuses {refused}: set model.fixer = 'opacus', which replaces what it can, or "
            "privacy.gradients = 'loop' where no layer normalises over the batch."
        )
        raise RunError(msg)
    reasons = []
    for mode in OPACUS_MODES:
        try:
            apart = max(_distance(network, inputs, mode, seed) for seed in _SEEDS)
        except RunError as error:
            reasons.append(str(error))
            continue
        if apart <= MOST_APART:
            return f"{OPACUS}-{mode}"
        reasons.append(
            f"Opacus ({mode}) is {apart:.1g} of its length away from one pass a patient: the "
            "network mixes the examples of a batch, or a layer's rule does not hold in it. Set "
            "privacy.gradients = 'loop'."
        )
    raise RunError(reasons[0])


def _distance(network: nn.Module, inputs: tuple[Tensor, ...], mode: str, seed: int) -> float:
    """Return how far a way of Opacus is from the loop, as a part of the loop's sum."""
    tried = _without_chance(network, seed)
    moved = tuple(part.double() for part in inputs)
    with torch.no_grad():
        outputs = tried(*moved)
    if not isinstance(outputs, Tensor) or len(outputs) != sum(_COUNTS):
        msg = "the network's answer is not one tensor with a row an example: give it that form."
        raise RunError(msg)
    directions = torch.randn(outputs.shape, generator=_generator(seed), dtype=torch.float64)
    batch = Batch(moved[0], moved[1] if len(moved) > 1 else None, directions.to(outputs.device))
    patients = PatientBatch(batch, _COUNTS)
    longest = _length(loop_clipped_sum(tried, patients.slice(0, 1), _loss, 1e30))
    clip = longest / 2 or 1.0  # so that some are clipped
    expected = loop_clipped_sum(tried, patients, _loss, clip)
    found = opacus_clipped_sum(tried, patients, _loss, clip, mode=mode, refuses=True)
    if found is None:
        msg = "the network answers made-up images with what is no number."
        raise RunError(msg)
    zeros = {name: torch.zeros_like(value) for name, value in expected.items()}
    gap = _length({name: {**zeros, **found}[name] - value for name, value in expected.items()})
    return gap / (_length(expected) or 1.0)


def _loss(outputs: Tensor, directions: Tensor) -> Tensor:
    """Return ``(M,)``: a smooth function of each example's outputs alone."""
    return (outputs * directions + outputs.square() / 2).flatten(1).sum(1)


def _length(sums: Parameters) -> float:
    return float(torch.stack([part.double().norm() for part in sums.values()]).norm())


def _without_chance(network: nn.Module, seed: int) -> nn.Module:
    """Return a copy in double precision, its weights moved, in which nothing is dropped."""
    tried = copy.deepcopy(network).double().train()
    for layer in tried.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0
        for key in ("drop_prob", "drop_path", "drop_connect_rate", "dropout"):
            if isinstance(getattr(layer, key, None), float):
                setattr(layer, key, 0.0)
    generator = _generator(seed)
    with torch.no_grad():
        for weight in (*tried.parameters(), *tried.buffers()):
            if not weight.is_floating_point():
                continue
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            weight.add_(_MOVED * noise.to(weight.device))
    return tried


def _made_up(study: Study) -> tuple[Tensor, ...]:
    """Return random inputs as the study's network takes them."""
    generator, size = _generator(_SEEDS[0]), study.input_size
    parts = []
    if size is not None:
        parts.append(torch.randn(sum(_COUNTS), study.data.planes, *size, generator=generator))
    if study.data.covariates:
        width = study.data.covariate_width
        parts.append(torch.randn(sum(_COUNTS), width, generator=generator))
    return tuple(parts)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
