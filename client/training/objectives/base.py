"""What a strategy asks of a site's training beside the study's loss."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from wardround.client.data.batch import Batch
from wardround.client.training.schedule import UNLIMITED, SchedulePosition, TimeLimit
from wardround.common.models.sharing import Layout
from wardround.common.parameters.schema import Parameters
from wardround.common.study.plans.strategy import StrategyPlan
from wardround.common.study.sections.training import TrainingSection

Loss = Callable[[Tensor, Tensor], Tensor]


class Objective(Protocol):
    """Takes part in each step of one round, and says at its end what is kept and what is sent."""

    def adjust(self, loss: Tensor, batch: Batch) -> Tensor:
        """Return what is differentiated, from the study's loss on a batch.

        Args:
            loss: The batch's mean loss, a scalar.
            batch: What the loss was computed on.

        Returns:
            A scalar.
        """

    def correct(self) -> None:
        """Change the gradients, which are complete and unscaled, before they are clipped."""

    def memory(self) -> Parameters:
        """Return what the site keeps for its next round, after the last step."""

    def auxiliary(self) -> Parameters:
        """Return what the update carries beside the model, after the last step."""


@dataclass(frozen=True, slots=True, eq=False)
class ParentKnowledge:
    """What a site holds of the model that its study goes on from.

    Attributes:
        network: The study's network as it started, on its device; it is not trained.
        classes: How many of its outputs are the parent's, the first ones.
        is_exclusive: Whether an example, or a voxel, is of one class.
        weight: What the objective's term is multiplied by.
        temperature: What logits are divided by before they are compared.
        fisher: How much each weight mattered to old patients, by name, each in its weight's shape;
            empty where nobody asks, or the site has no old patients.
    """

    network: nn.Module
    classes: int
    is_exclusive: bool
    weight: float
    temperature: float
    fisher: Parameters = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class LocalStart:
    """Where a round of local training starts.

    Attributes:
        network: Holds ``parameters``, on its device.
        parameters: The whole model that was received, with the site's own part where it has one.
        auxiliary: What the instruction carried beside the model.
        memory: What the site kept from its last round; empty in its first.
        loss: The study's loss.
        limit: Until when it has to be over.
        parent: What is held on to, of a study that goes on from another one.
    """

    network: nn.Module
    parameters: Parameters = field(repr=False)
    auxiliary: Parameters = field(repr=False)
    memory: Parameters = field(repr=False)
    plan: StrategyPlan
    layout: Layout
    training: TrainingSection
    position: SchedulePosition
    loss: Loss
    limit: TimeLimit = UNLIMITED
    parent: ParentKnowledge | None = None

    def shared_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the trained parameters that all sites share, each once."""
        shared = set(self.layout.shared)
        for name, weight in self.network.named_parameters():
            if name in shared and weight.requires_grad:
                yield name, weight
