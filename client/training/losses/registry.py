"""Which loss a study names, and that loss with its class weights."""

from functools import partial as partial_of

import torch
from torch import Tensor

from wardround.client.training.losses.boxes import focal_giou, hard_negative_giou
from wardround.client.training.losses.labels import (
    SampleLoss,
    bce,
    cross_entropy,
    dice,
    dice_ce,
    focal,
    generalised_dice,
    mse,
    smoothed_cross_entropy,
)
from wardround.client.training.losses.mean_loss import MeanLoss
from wardround.client.training.losses.outcomes import OUTCOME_LOSSES, outcome_loss
from wardround.client.training.losses.partial_labels import PartialLabels
from wardround.client.training.losses.pretraining import masked_l1, nt_xent
from wardround.common.errors import StudyError, known_names
from wardround.common.files.packages.references import reference_of
from wardround.common.study.study import Study

LOSS_BUILDERS: dict[str, SampleLoss] = {
    "cross-entropy": cross_entropy,
    "focal": focal,
    "bce": bce,
    "dice": dice,
    "dice-ce": dice_ce,
    "generalised-dice": generalised_dice,
    "mse": mse,
    "focal-giou": focal_giou,
    "hard-negative-giou": hard_negative_giou,
    **{name: loss for name, loss in OUTCOME_LOSSES.items() if name != "mse"},
    "masked-l1": masked_l1,
    "nt-xent": nt_xent,
}


def build_loss(
    study: Study,
    class_counts: Tensor | None,
    device: torch.device,
    annotated: tuple[int, ...] | None = None,
) -> MeanLoss:
    """Return the study's loss.

    Args:
        study: Says the loss and its class weights.
        class_counts: ``(K,)`` training examinations (or pixels) of each class; only needed for
            ``class_weights = "balanced"``.
        device: Where logits and targets will be.
        annotated: The classes that the site has annotated; None for all of them.

    Raises:
        StudyError: The loss is unknown, or balanced weights lack the counts.
    """
    if study.loss not in LOSS_BUILDERS and reference_of(study.loss) is None:
        raise StudyError(known_names("loss", study.loss, LOSS_BUILDERS))
    weights = _chosen_weights(study, class_counts)
    partial = None
    if annotated is not None:
        partial = PartialLabels(annotated, study.class_count, study.task.dense)
    on_device = None if weights is None else weights.to(device)
    ignores = study.data.ignore_label is not None
    if reference_of(study.loss) is not None:
        from wardround.client.training.registered import registered_loss  # few studies name one

        return MeanLoss(registered_loss(study), on_device, partial, ignores)
    of_samples = LOSS_BUILDERS[study.loss]
    if study.task.outcome:
        of_samples = outcome_loss(study)
    if study.training.label_smoothing:
        of_samples = partial_of(smoothed_cross_entropy, smoothing=study.training.label_smoothing)
    return MeanLoss(of_samples, on_device, partial, ignores)


def _chosen_weights(study: Study, class_counts: Tensor | None) -> Tensor | None:
    chosen = study.training.class_weights
    if chosen == "none":
        return None
    if chosen != "balanced":
        return torch.tensor(chosen)
    if class_counts is None:
        msg = (
            "training.class_weights = 'balanced' needs the number of cases a class, "
            "and this site does not know it: give the weights as numbers."
        )
        raise StudyError(msg)
    return balanced_weights(class_counts)


def balanced_weights(class_counts: Tensor) -> Tensor:
    """Return ``n / (K n_c)``, so that every class has the same total weight (King and Zeng 2001).

    K counts the classes that are present and an absent class gets 0: the mean weight of the
    examinations is then 1 at every site, whatever classes it holds.

    Args:
        class_counts: ``(K,)``, at least 0; not all 0.

    Returns:
        ``(K,)`` float32.
    """
    counts = class_counts.to("cpu", torch.float64)
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts)
    return torch.where(present, weights, 0.0).float()
