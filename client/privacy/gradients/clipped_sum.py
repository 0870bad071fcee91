"""The clipped sum of a step: one gradient a patient, each clipped, by the fastest exact method."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wardround.client.privacy.gradients.ghost import ghost_clipped_sum
from wardround.client.privacy.gradients.loop import PerSampleLoss, loop_clipped_sum
from wardround.client.privacy.gradients.opacus_modes import METHODS_OF_OPACUS
from wardround.client.privacy.gradients.patient_batch import PatientBatch
from wardround.client.privacy.gradients.vmap import vmap_clipped_sum
from wardround.common.errors import StudyError, known_names
from wardround.common.models.sharing import trained_parameters

ClippedSum = Callable[[nn.Module, PatientBatch, PerSampleLoss, float], "dict[str, Tensor] | None"]

METHODS: dict[str, ClippedSum] = {
    "ghost": ghost_clipped_sum,
    "loop": loop_clipped_sum,
    "vmap": vmap_clipped_sum,
    **METHODS_OF_OPACUS,
}


def clipped_gradient_sum(
    network: nn.Module,
    patients: PatientBatch,
    per_sample_loss: PerSampleLoss,
    clip_norm: float,
    method: str,
    microbatch: int,
) -> dict[str, Tensor]:
    """Return ``sum_p min(1, C / ||g_p||) g_p`` (Abadi et al. 2016, algorithm 1, lines 6-8).

    ``g_p`` is the gradient of the mean loss of patient p's examples. A patient whose gradient is
    not finite, or whose squared norm is beyond float32, counts as 0.

    Args:
        network: Without layers that mix the examples of a batch.
        patients: May hold nobody.
        per_sample_loss: From logits and targets of M examples to ``(M,)`` losses.
        clip_norm: C, above 0.
        method: One of :data:`METHODS`.
        microbatch: Examples in memory at once. The sum does not depend on it, up to rounding. A
            patient who has more is computed alone and whole.

    Returns:
        One tensor a trainable parameter, by its name; zeros for an empty batch.

    Raises:
        StudyError: The method is unknown.
        RunError: The network does not fit the method.
    """
    if method not in METHODS:
        raise StudyError(known_names("method", method, METHODS))
    total: dict[str, Tensor] = {}
    for piece in patients.pieces(microbatch):
        part = METHODS[method](network, piece, per_sample_loss, clip_norm)
        if part is None:
            # A product with a patient's zero weight would still be no number, so that patient must
            # not be computed together with others.
            part = loop_clipped_sum(network, piece, per_sample_loss, clip_norm)
        for name, value in part.items():
            total[name] = total[name].add_(value) if name in total else value
    weights = trained_parameters(network)
    return {n: total[n] if n in total else torch.zeros_like(w) for n, w in weights.items()}
