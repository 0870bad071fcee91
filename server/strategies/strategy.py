"""What the round loop asks of a strategy; the loop knows no strategy by name."""

from typing import Protocol

from wardround.common.parameters import Parameters
from wardround.common.study import Study
from wardround.common.update import SiteUpdate
from wardround.server.strategies.combination import Combination, WeightedMean


class Strategy(Protocol):
    """The server's half of an algorithm, over all rounds of a run."""

    def begin(self, number: int, parameters: Parameters) -> None:
        """Prepare for a round, which starts from this model."""

    def extras(self, site: str) -> Parameters:
        """Return what an order carries to a site beside the model, e.g. a control variate."""

    def fold(self, update: SiteUpdate) -> None:
        """Take one site's update in."""

    def finish(self) -> Parameters:
        """Return the next model."""

    def state(self) -> Parameters:
        """Return what must survive a crash, as named tensors."""

    def restore(self, state: Parameters) -> None:
        """Go on from a state."""


class PlainStrategy:
    """A combination, and nothing to remember (FedAvg: McMahan et al. 2017, algorithm 1)."""

    def __init__(self) -> None:
        self._combination: Combination = WeightedMean()

    def begin(self, number: int, parameters: Parameters) -> None:
        """Forget the updates of a round that did not end."""
        self._combination = WeightedMean()

    def extras(self, site: str) -> Parameters:
        """Return nothing: the model is all a site gets."""
        return {}

    def fold(self, update: SiteUpdate) -> None:
        """Take one site's update in."""
        self._combination.fold(update)

    def finish(self) -> Parameters:
        """Return the combined model."""
        return self._combination.finish()

    def state(self) -> Parameters:
        """Return nothing: there is nothing to remember."""
        return {}

    def restore(self, state: Parameters) -> None:
        """Do nothing: there is nothing to remember."""


def make_strategy(study: Study) -> Strategy:
    """Return the server's half of the study's strategy."""
    return PlainStrategy()
