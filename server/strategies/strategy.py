"""What the round loop asks of a strategy; the loop knows no strategy by name."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from wardround.common.messages.replies import SiteUpdate
from wardround.common.parameters.schema import Model, Parameters

Site = TypeVar("Site")


class Strategy(Protocol):
    """The server's half of an algorithm, over all rounds of a run."""

    def cohorts(self, sites: Sequence[Site]) -> Sequence[Sequence[Site]]:
        """Return who works at the same time, and in which order; one cohort unless in turn."""

    def begin(self, number: int, parameters: Model) -> None:
        """Prepare for a round, which starts from this model."""

    def model(self) -> Model:
        """Return the model that the next cohort of this round is sent."""

    def auxiliary(self) -> Parameters:
        """Return what an instruction carries beside the model, e.g. a control variate."""

    def accumulate(self, update: SiteUpdate) -> None:
        """Take one site's update in.

        Raises:
            WardroundError: The update is not what this strategy asked for; nothing was taken in.
        """

    def finish(self) -> Parameters:
        """Return the next model."""

    def state(self) -> Parameters:
        """Return what must survive a crash, as named tensors."""

    def restore(self, state: Parameters) -> None:
        """Go on from a state."""
