"""Learning without forgetting: on new images a network answers as the parent's model does."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wardround.client.data.batch import Batch
from wardround.client.training.objectives.base import LocalStart, ParentKnowledge
from wardround.common.errors import RunError
from wardround.common.parameters.schema import Parameters


class Distillation:
    """``loss + lambda T^2 KL(p*_T || p_T)`` (Li and Hoiem 2017, TPAMI, section 3, equation 1).

    ``p_T`` are the probabilities of the classes that the parent's model knows, from logits divided
    by the temperature T, and ``p*_T`` the parent's; the factor keeps the gradient's size whatever T
    (Hinton et al. 2015, section 2). The divergence differs from the paper's cross-entropy by what
    no weight changes. Labels that do not exclude each other are compared one by one.
    """

    def __init__(self, start: LocalStart) -> None:
        if start.parent is None:
            msg = "the study names no parent, whose answers would be held on to."
            raise RunError(msg)
        self._parent: ParentKnowledge = start.parent
        self._latest: Tensor | None = None
        own = weakref.ref(self)

        def keep(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if (objective := own()) is not None:
                objective._latest = output if isinstance(output, Tensor) else output[0]

        # The network outlives the round, and is that of the next site too.
        hook = start.network.register_forward_hook(keep)
        weakref.finalize(self, hook.remove)

    def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
        """Return the loss plus the divergence, a scalar."""
        if self._latest is None:
            msg = (
                "continual.method = 'lwf' needs the answers of each batch, and several devices "
                "train this site: set one device in site.toml, or ask for 'replay' or 'ewc'."
            )
            raise RunError(msg)
        parent = self._parent
        with torch.no_grad():
            before = parent.network(*batch.inputs)
        answers = self._latest[:, : parent.classes].float() / parent.temperature
        held = before[:, : parent.classes].float() / parent.temperature
        self._latest = None
        return loss + parent.weight * parent.temperature**2 * _divergence(
            answers, held, parent.is_exclusive
        )

    def correct(self) -> None:
        """Leave the gradients as they are."""

    def memory(self) -> Parameters:
        """Return nothing."""
        return {}

    def auxiliary(self) -> Parameters:
        """Return nothing."""
        return {}


def _divergence(answers: Tensor, held: Tensor, is_exclusive: bool) -> Tensor:
    """Return the mean divergence over examples, or voxels, of logits ``(B, K, ...)``."""
    if is_exclusive:
        each = F.kl_div(
            answers.log_softmax(1), held.log_softmax(1), log_target=True, reduction="none"
        )
        return each.sum(1).mean()
    truth = held.sigmoid()
    least = F.binary_cross_entropy_with_logits(held, truth)
    return F.binary_cross_entropy_with_logits(answers, truth) - least
