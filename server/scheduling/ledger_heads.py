"""What a server folder remembers of its sites' privacy ledgers, over all runs of all studies."""

from dataclasses import dataclass
from pathlib import Path

from wardround.common.files.json_lines import ChainHead
from wardround.common.messages.instructions import NO_LEDGER
from wardround.server.scheduling.store import changing, reading


@dataclass(frozen=True, slots=True)
class ServerLedgers:
    """The memory of a server folder, in its database."""

    folder: Path

    def known(self, site: str) -> ChainHead:
        """Return what is remembered of a site's ledger.

        Raises:
            RunError: The database cannot be used.
        """
        with reading(self.folder) as connection:
            question = "SELECT entries, head FROM ledgers WHERE site = ?"
            row = connection.execute(question, (site,)).fetchone()
        return NO_LEDGER if row is None else ChainHead(*row)

    def note(self, site: str, mark: ChainHead) -> None:
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
                (site, mark.entries, mark.hash),
            )
