"""FedRep's local half: the head alone first, then the body alone (Collins et al. 2021, alg. 1)."""

from torch import Tensor

from wardround.client.data.batch import Batch
from wardround.client.training.objectives.base import LocalStart
from wardround.common.models.sharing import head_names
from wardround.common.parameters.schema import Parameters


class HeadThenBody:
    """Trains the head in the first part of a round's steps, and all the rest in the others.

    A round has as many steps as with any other objective; ``head_fraction`` of them, at least one,
    are the head's.
    """

    def __init__(self, start: LocalStart) -> None:
        heads = set(head_names(start.network))
        self._head = [w for name, w in start.network.named_parameters() if name in heads]
        self._body = [w for name, w in start.network.named_parameters() if name not in heads]
        share = start.plan.options.head_fraction * start.position.steps
        self._head_steps = max(1, round(share))
        self._done = 0

    def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
        """Return the loss, a scalar."""
        return loss

    def correct(self) -> None:
        """Take the gradients of the part away that rests in this step."""
        resting = self._body if self._done < self._head_steps else self._head
        for weight in resting:
            weight.grad = None
        self._done += 1

    def memory(self) -> Parameters:
        """Return nothing: the head is kept as the site's own part."""
        return {}

    def auxiliary(self) -> Parameters:
        """Return nothing."""
        return {}
