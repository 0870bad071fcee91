"""The runs of a server and when its sites were last seen, as rows of ``server.sqlite3``."""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from wardround.common.errors import InputError, RunError
from wardround.server.database import connect, transaction
from wardround.server.identity.membership import SCHEMA as MEMBERSHIP
from wardround.server.identity.membership import Member, members

QUEUED, RUNNING, STOPPED, FINISHED, FAILED = "queued", "running", "stopped", "finished", "failed"
RUN, STOP = "run", "stop"  # what the operator wants of a run
SCHEMA = (
    MEMBERSHIP
    + """
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL UNIQUE, study TEXT NOT NULL,
    digest TEXT NOT NULL, state TEXT NOT NULL, wanted TEXT NOT NULL, place INTEGER NOT NULL,
    submitted REAL NOT NULL, started REAL, ended REAL, reason TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS turns (run TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS ledgers (
    site TEXT PRIMARY KEY, entries INTEGER NOT NULL, head TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS audit_heads (
    site TEXT PRIMARY KEY, entries INTEGER NOT NULL, mark TEXT NOT NULL,
    signature TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS audit_receipts (
    site TEXT NOT NULL, run TEXT NOT NULL, round TEXT NOT NULL, receipt TEXT NOT NULL,
    PRIMARY KEY (site, run)) STRICT;
CREATE TABLE IF NOT EXISTS sightings (site TEXT PRIMARY KEY, seen REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS versions (site TEXT PRIMARY KEY, wardround TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS monitoring (
    site TEXT PRIMARY KEY, word TEXT NOT NULL, said REAL NOT NULL) STRICT;
"""
)
_SHOWN_NAMES = 12  # the latest; a list of all would push the remedy off the screen


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run of the queue; times are seconds since 1970.

    Attributes:
        run: Its name, which is that of its folder.
        state: ``queued``, ``running``, ``stopped``, ``finished`` or ``failed``.
        wanted: What the operator wants of it: ``run`` or ``stop``.
        place: In the queue; the lowest is next.
        reason: Why it ended, where it did not finish.
    """

    number: int
    run: str
    study: str
    digest: str
    state: str
    wanted: str
    place: int
    submitted: float
    started: float | None
    ended: float | None
    reason: str

    @property
    def is_over(self) -> bool:
        """Whether it goes on only if an operator resumes it, or not at all."""
        return self.state not in (QUEUED, RUNNING)


@dataclass(frozen=True, slots=True)
class SiteRow:
    """One site of the consortium; times are seconds since 1970.

    Attributes:
        expires: When its last certificate that is not revoked does; None if it has none.
        revoked: Whether all its certificates were taken from it.
        seen: When it was last connected, to about ten seconds; None if never.
        wardround: The version that it said it runs, when it was last ready for a study.
        monitoring: Whether its monitoring raised an alarm, as it said last; "" if it never did.
        monitored: When it said so.
    """

    site: str
    joined: float
    expires: float | None
    revoked: bool
    seen: float | None
    wardround: str = ""
    monitoring: str = ""
    monitored: float | None = None


NEXT_PLACE = "(SELECT coalesce(max(place), 0) + 1 FROM runs)"
_COLUMNS = ", ".join(field.name for field in fields(RunRow))


@contextmanager
def changing(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the database to change runs: all that is done is kept, or nothing.

    Raises:
        RunError: The database cannot be used.
    """
    with transaction(folder, SCHEMA) as connection:
        yield connection


@contextmanager
def reading(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the database to read; it waits for no writer.

    Raises:
        RunError: The database cannot be used.
    """
    with closing(connect(folder, SCHEMA)) as connection:
        try:
            yield connection
        except sqlite3.Error as error:
            msg = f"cannot read the server's database ({error}): check the disk."
            raise RunError(msg) from None


def select_runs(
    connection: sqlite3.Connection, condition: str = "TRUE", values: Iterable[object] = ()
) -> list[RunRow]:
    """Return the runs for which a condition of SQL holds, the next one first."""
    question = f"SELECT {_COLUMNS} FROM runs WHERE {condition} ORDER BY place"
    return [RunRow(*row) for row in connection.execute(question, tuple(values))]


def get_run(connection: sqlite3.Connection, run: str) -> RunRow:
    """Return a run.

    Raises:
        InputError: There is none of that name.
    """
    found = select_runs(connection, "run = ?", (run,))
    if found:
        return found[0]
    names = [str(name) for (name,) in connection.execute("SELECT run FROM runs ORDER BY number")]
    known = ", ".join(names[-_SHOWN_NAMES:]) or "none yet"
    msg = f"there is no run {run!r} on this server. Known: {known}."
    raise InputError(msg)


def all_runs(folder: Path) -> tuple[RunRow, ...]:
    """Return all runs, the oldest first.

    Raises:
        RunError: The database cannot be used.
    """
    with reading(folder) as connection:
        return tuple(sorted(select_runs(connection), key=lambda row: row.number))


def find_run(folder: Path, run: str) -> RunRow:
    """Return a run.

    Raises:
        InputError: There is none of that name.
        RunError: The database cannot be used.
    """
    with reading(folder) as connection:
        return get_run(connection, run)


def note_seen(folder: Path, sites: Iterable[str]) -> None:
    """Note that sites are connected now.

    Raises:
        RunError: The database cannot be used.
    """
    now = time.time()
    with changing(folder) as connection:
        connection.executemany(
            "INSERT INTO sightings VALUES (?, ?) "
            "ON CONFLICT (site) DO UPDATE SET seen = excluded.seen",
            [(site, now) for site in sites],
        )


def note_versions(folder: Path, versions: Mapping[str, str]) -> None:
    """Note which version of wardround sites say they run.

    Raises:
        RunError: The database cannot be used.
    """
    with changing(folder) as connection:
        connection.executemany(
            "INSERT INTO versions VALUES (?, ?) "
            "ON CONFLICT (site) DO UPDATE SET wardround = excluded.wardround",
            [*versions.items()],
        )


def note_monitoring(folder: Path, words: Mapping[str, str]) -> None:
    """Note what sites said of the monitoring of a model there.

    Raises:
        RunError: The database cannot be used.
    """
    now = time.time()
    with changing(folder) as connection:
        connection.executemany(
            "INSERT INTO monitoring VALUES (?, ?, ?) "
            "ON CONFLICT (site) DO UPDATE SET word = excluded.word, said = excluded.said",
            [(site, word, now) for site, word in words.items()],
        )


def all_sites(folder: Path) -> tuple[SiteRow, ...]:
    """Return all sites that ever joined, by name.

    Raises:
        RunError: The database cannot be used.
    """
    joined = members(folder)
    with reading(folder) as connection:
        seen = dict(connection.execute("SELECT site, seen FROM sightings").fetchall())
        versions = dict(connection.execute("SELECT site, wardround FROM versions").fetchall())
        rows = connection.execute("SELECT site, word, said FROM monitoring").fetchall()
    words = {site: (word, said) for site, word, said in rows}
    return tuple(
        _site(
            member,
            seen.get(member.site),
            versions.get(member.site, ""),
            words.get(member.site, ("", None)),
        )
        for member in joined
    )


def _site(
    member: Member, seen: float | None, wardround: str, monitoring: tuple[str, float | None]
) -> SiteRow:
    # A certificate that ran out keeps its date; one that was revoked leaves none.
    expires = None if member.expires is None else member.expires.timestamp()
    joined = member.joined.timestamp()
    return SiteRow(member.site, joined, expires, expires is None, seen, wardround, *monitoring)
