"""The roll of members as the link reads it: whose node key is whose, at this moment."""

import sqlite3
import threading
from pathlib import Path

from wardround.common.errors import RunError
from wardround.server.database import connect
from wardround.server.identity.membership import SCHEMA


class MemberLookup:
    """Reads the table of members at every question, so that a site that joins is known at once.

    Several threads may use it.
    """

    def __init__(self, folder: Path) -> None:
        """Open the database of a server folder.

        Raises:
            RunError: It cannot be used.
        """
        self._connection = connect(folder, SCHEMA)
        self._lock = threading.Lock()

    def site_of(self, node_key: bytes) -> str | None:
        """Return the site that a node key (PEM) belongs to, None if it is nobody's.

        Raises:
            RunError: The database cannot be used.
        """
        text = node_key.decode("ascii", errors="replace")
        question = "SELECT site FROM members WHERE node_key = ?"
        try:
            with self._lock:
                row = self._connection.execute(question, (text,)).fetchone()
        except sqlite3.Error as error:
            msg = f"the roll of members cannot be read ({error}): check the server's disk."
            raise RunError(msg) from None
        return None if row is None else str(row[0])

    def close(self) -> None:
        """Close the database."""
        self._connection.close()
