"""What a server remembers of its sites' privacy ledgers.

A ledger that was deleted, put back from an old copy, or written anew does not hold the entry that
is remembered here, and the site that is told of it does not train.
"""

from dataclasses import dataclass, field
from typing import Protocol

from wardround.common.files.hash_chain import ChainHead
from wardround.common.messages.instructions import NO_LEDGER


class LedgerMemory(Protocol):
    """The last entry of each site's ledger that was heard of."""

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
