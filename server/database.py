"""``server.sqlite3``: what a server knows, in one file that several processes use at a time."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from wardround.common.errors import RunError
from wardround.common.files.atomic import write_new

DATABASE_FILE = "server.sqlite3"
_BUSY_SECONDS = 10.0  # each change is one small transaction: who waits longer has found a hung disk


@contextmanager
def transaction(folder: Path, schema: str) -> Iterator[sqlite3.Connection]:
    """Open the database for one transaction; all of it is kept, or nothing.

    It takes the right to write at once, so that what is read in it stays true until its end.

    Args:
        schema: Statements that make the tables used, where they are not there yet.

    Raises:
        RunError: The file cannot be used.
    """
    try:
        with closing(connect(folder, schema)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise RunError(_unusable(folder, error)) from None


def connect(folder: Path, schema: str) -> sqlite3.Connection:
    """Open the database; readers do not wait for a writer.

    Raises:
        RunError: The file cannot be used.
    """
    path = folder / DATABASE_FILE
    try:
        _make_private(path)
        connection = sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as error:
        raise RunError(_unusable(folder, error)) from None
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(schema)
    except sqlite3.Error as error:
        connection.close()
        raise RunError(_unusable(folder, error)) from None
    return connection


def _make_private(path: Path) -> None:
    """Make the file, for its owner alone.

    One that is there is not even opened: closing a file drops every lock that this process has on
    it, those of SQLite too, and another process would take the database from under our feet.
    """
    with suppress(FileExistsError):
        write_new(path, b"", durable=False)


def _unusable(folder: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else error
    return (
        f"cannot use {folder / DATABASE_FILE} ({reason}): "
        "check the disk and the folder's owner, or restore it from a backup."
    )
