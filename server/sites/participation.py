"""Who takes part in a round, and what is remembered of each: as a round loop sees its sites."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from wardround.common.files.json_lines import ChainHead
from wardround.common.messages.instructions import NO_LEDGER
from wardround.common.runtime.seeds import generator_for
from wardround.common.study.study import Study
from wardround.server.sites.deadlines import Deadlines
from wardround.server.sites.exchange import Node


class LedgerMemory(Protocol):
    """The last entry of each site's privacy ledger that was heard of.

    A ledger that was deleted, put back from an old copy, or written anew does not hold the entry
    that is remembered here, and the site that is told of it does not train.
    """

    def known(self, site: str) -> ChainHead:
        """Return what is remembered of a site's ledger."""

    def note(self, site: str, mark: ChainHead) -> None:
        """Remember what a site said of its ledger, if that is later than what is remembered."""


@dataclass(frozen=True, slots=True)
class RunLedgers:
    """A memory that ends with its run: a simulation's."""

    marks: dict[str, ChainHead] = field(default_factory=dict)

    def known(self, site: str) -> ChainHead:
        """Return what is remembered of a site's ledger."""
        return self.marks.get(site, NO_LEDGER)

    def note(self, site: str, mark: ChainHead) -> None:
        """Remember what a site said of its ledger, if that is later than what is remembered."""
        self.marks[site] = self.known(site).or_later(mark)


class Participation(Protocol):
    """The sites of a run, as a round loop sees them."""

    @property
    def deadlines(self) -> Deadlines:
        """How long they are waited for."""

    @property
    def ledgers(self) -> LedgerMemory:
        """What is remembered of their privacy ledgers."""

    def of_round(self, number: int) -> tuple[Node, ...]:
        """Return the sites that may be asked in a round, in the order of their names."""

    def absent(self) -> Mapping[str, str]:
        """Return the sites that are not asked though the run is for them, and why."""

    def miss(self, site: str, number: int, is_stuck: bool) -> None:
        """Note that a site did not answer in a round.

        Args:
            is_stuck: It is stuck or slow; else it was gone, or is starting again.
        """

    def note(self, site: str) -> None:
        """Note that a site that was missed has answered after all."""

    def wait(self, site: str, words: str) -> None:
        """Note that a round waits notably long for a site; no words when that is over."""


@dataclass(frozen=True, slots=True)
class SameSites:
    """The same sites in each round, whatever happens: a simulation's."""

    nodes: tuple[Node, ...]
    deadlines: Deadlines
    ledgers: LedgerMemory = field(default_factory=RunLedgers)

    def of_round(self, number: int) -> tuple[Node, ...]:
        """Return all sites."""
        return self.nodes

    def absent(self) -> Mapping[str, str]:
        """Return nobody."""
        return {}

    def miss(self, site: str, number: int, is_stuck: bool) -> None:
        """Ask it again in the next round."""

    def note(self, site: str) -> None:
        """Nothing has changed."""

    def wait(self, site: str, words: str) -> None:
        """Nobody is looking."""


@dataclass(frozen=True, slots=True)
class LateSites:
    """Sites of which some take part from a later round on.

    Attributes:
        inner: The sites, whether they take part yet or not.
        first_rounds: By site, the first round that it is asked in; whoever is absent here is asked
            from the first.
    """

    inner: Participation
    first_rounds: Mapping[str, int]

    @property
    def deadlines(self) -> Deadlines:
        """How long they are waited for."""
        return self.inner.deadlines

    @property
    def ledgers(self) -> LedgerMemory:
        """What is remembered of their privacy ledgers."""
        return self.inner.ledgers

    def of_round(self, number: int) -> tuple[Node, ...]:
        """Return the sites that take part by then."""
        nodes = self.inner.of_round(number)
        return tuple(node for node in nodes if self.first_rounds.get(node.site, 0) <= number)

    def absent(self) -> Mapping[str, str]:
        """Return who is not asked; who does not take part yet lacks nowhere."""
        return self.inner.absent()

    def miss(self, site: str, number: int, is_stuck: bool) -> None:
        """Note that a site did not answer."""
        self.inner.miss(site, number, is_stuck)

    def note(self, site: str) -> None:
        """Note that a site has answered after all."""
        self.inner.note(site)

    def wait(self, site: str, words: str) -> None:
        """Note that a round waits notably long for a site."""
        self.inner.wait(site, words)


def select_sites(nodes: Sequence[Node], study: Study, number: int) -> tuple[Node, ...]:
    """Return the sites of a round, in the order of their names.

    ``federation.fraction`` of them, rounded up, and never fewer than ``minimum_sites`` where there
    are as many; drawn anew each round, the same for the same seed.
    """
    federation = study.federation
    wanted = max(math.ceil(federation.fraction * len(nodes)), federation.minimum_sites)
    if wanted >= len(nodes):
        return tuple(nodes)
    generator = generator_for(federation.seed, "selection", number)
    drawn = torch.randperm(len(nodes), generator=generator)[:wanted].sort().values
    return tuple(nodes[index] for index in drawn.tolist())
