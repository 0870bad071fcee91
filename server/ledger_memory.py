"""What a server remembers of its sites' privacy ledgers, over all runs of all studies.

A ledger that was deleted, put back from an old copy, or written anew does not hold the entry that
is remembered here, and the site that is told of it does not train.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from wardround.common.orders import NO_LEDGER, LedgerMark
from wardround.server.store import changing, reading


class LedgerMemory(Protocol):
    """The last entry of each site's ledger that was heard of."""

    def known(self, site: str) -> LedgerMark:
        """Return what is remembered of a site's ledger."""

    def hear(self, site: str, mark: LedgerMark) -> None:
        """Remember what a site said of its ledger, if that is later than what is remembered."""


@dataclass(frozen=True, slots=True)
class RunLedgers:
    """A memory that ends with its run: a simulation's."""

    marks: dict[str, LedgerMark] = field(default_factory=dict)

    def known(self, site: str) -> LedgerMark:
        """Return what is remembered of a site's ledger."""
        return self.marks.get(site, NO_LEDGER)

    def hear(self, site: str, mark: LedgerMark) -> None:
        """Remember what a site said of its ledger, if that is later than what is remembered."""
        self.marks[site] = self.known(site).or_later(mark)


@dataclass(frozen=True, slots=True)
class ServerLedgers:
    """The memory of a server folder, in its database."""

    folder: Path

    def known(self, site: str) -> LedgerMark:
        """Return what is remembered of a site's ledger.

        Raises:
            RunError: The database cannot be used.
        """
        with reading(self.folder) as connection:
            question = "SELECT entries, head FROM ledgers WHERE site = ?"
            row = connection.execute(question, (site,)).fetchone()
        return NO_LEDGER if row is None else LedgerMark(*row)

    def hear(self, site: str, mark: LedgerMark) -> None:
        """Remember what a site said of its ledger, if that is later than what is remembered.

        Raises:
            RunError: The database cannot be used.
        """
        if not mark.entries:
            return
        with changing(self.folder) as connection:
            connection.execute(
                "INSERT INTO ledgers VALUES (?, ?, ?) ON CONFLICT (site) DO UPDATE "
                "SET entries = excluded.entries, head = excluded.head "
                "WHERE excluded.entries > ledgers.entries",
                (site, mark.entries, mark.head),
            )
