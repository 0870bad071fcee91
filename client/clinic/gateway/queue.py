"""The studies that a gateway has to answer: on disk, so that no end of the process loses one.

An entry is a series as it was at one moment, and a model: a series that grows is another entry.
Entries are added once, whoever says how often that the series is there.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wardround.common.errors import RunError
from wardround.common.files.atomic import make_private_folder, open_or_make

WAITING, DONE, REFUSED, GIVEN_UP = "waiting", "done", "refused", "given up"
STATES = (WAITING, DONE, REFUSED, GIVEN_UP)
MOST_STARTS = 30  # without an end: the process was killed, or died of the study itself
_LONGEST_WAIT_SECONDS = 3_600.0
_LONGEST_REASON = 500
_BUSY_SECONDS = 30.0
_UNSETTLED_SECONDS = 5.0
_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS work (
  id INTEGER PRIMARY KEY,
  study TEXT NOT NULL, series TEXT NOT NULL, objects TEXT NOT NULL, model TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'waiting',
  errors INTEGER NOT NULL DEFAULT 0,
  starts INTEGER NOT NULL DEFAULT 0,
  next_try REAL NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT '',
  UNIQUE (study, series, objects, model)
) STRICT;
CREATE TABLE IF NOT EXISTS seen (
  study TEXT NOT NULL, series TEXT NOT NULL, model TEXT NOT NULL,
  count INTEGER NOT NULL, since REAL NOT NULL, added INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (study, series, model)
) STRICT;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Work:
    """One entry.

    Attributes:
        objects: Digest of the identifiers of the series' objects.
        model: Digest of the model that is to answer.
        errors: How often it failed.
        starts: How often it was begun and nobody knows how that ended.
    """

    id: int
    study: str
    series: str
    objects: str
    model: str
    errors: int
    starts: int


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """What is in a queue, without anything of a patient.

    Attributes:
        states: Entries by state.
        reasons: Why entries were refused, given up or wait for another try; (state, reason, count).
        facts: What the gateway wrote down last, e.g. when it asked.
    """

    states: dict[str, int]
    reasons: tuple[tuple[str, str, int], ...]
    facts: dict[str, str]


class WorkQueue:
    """The queue of one site folder."""

    def __init__(self, path: Path) -> None:
        """Open it; it is made where it is missing.

        Raises:
            RunError: It cannot be read or written.
        """
        make_private_folder(path.parent)
        with _in_words(path):
            _make_private(path)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            # What was written survives a power cut, not only the process.
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, _VERSION):
                msg = (
                    f"{path} was written by a later version of wardround: install that one, or "
                    "move the file away."
                )
                raise RunError(msg)
            self._connection.executescript(f"{_TABLES} PRAGMA user_version = {_VERSION};")
        self._path = path

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def settled(self, place: tuple[str, str, str], count: int, settle_seconds: float) -> bool:
        """Whether a series is to be added: it has not grown for so long, and was not added so.

        Args:
            place: Study, series and model.
            count: How many objects it has now.
        """
        now = time.time()
        with _in_words(self._path), self._transaction() as link:
            row = link.execute(
                "SELECT count, since, added FROM seen WHERE study = ? AND series = ? AND model = ?",
                place,
            ).fetchone()
            if row is None or row[0] != count:
                link.execute(
                    "INSERT OR REPLACE INTO seen (study, series, model, count, since) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (*place, count, now),
                )
                return settle_seconds == 0
        _, since, added = row
        return not added and not 0 <= now - since < settle_seconds

    def is_unsettled(self, model: str, settle_seconds: float) -> bool:
        """Whether a series was seen lately that may still grow."""
        since = time.time() - 2 * settle_seconds - _UNSETTLED_SECONDS
        with _in_words(self._path):
            (count,) = self._connection.execute(
                "SELECT count(*) FROM seen WHERE added = 0 AND model = ? AND since > ?",
                (model, since),
            ).fetchone()
        return bool(count)

    def add(self, place: tuple[str, str, str], objects: str) -> str:
        """Add an entry, unless it is there already; return its state.

        Args:
            place: Study, series and model.
            objects: Digest of the identifiers of the series' objects.
        """
        with _in_words(self._path), self._transaction() as link:
            link.execute(
                "INSERT OR IGNORE INTO work (study, series, model, objects) VALUES (?, ?, ?, ?)",
                (*place, objects),
            )
            link.execute(
                "UPDATE seen SET added = 1 WHERE study = ? AND series = ? AND model = ?", place
            )
            (state,) = link.execute(
                "SELECT state FROM work WHERE study = ? AND series = ? AND model = ? "
                "AND objects = ?",
                (*place, objects),
            ).fetchone()
        return str(state)

    def next(self, model: str) -> Work | None:
        """Return the entry whose turn it is; what ended the process before comes last."""
        with _in_words(self._path):
            row = self._connection.execute(
                "SELECT id, study, series, objects, model, errors, starts FROM work "
                "WHERE state = 'waiting' AND model = ? AND next_try <= ? "
                "ORDER BY starts, next_try, id LIMIT 1",
                (model, time.time()),
            ).fetchone()
        return None if row is None else Work(*row)

    def seconds_to_next(self, model: str) -> float | None:
        """Return how long until an entry's turn comes; None where none waits."""
        with _in_words(self._path):
            (when,) = self._connection.execute(
                "SELECT min(next_try) FROM work WHERE state = 'waiting' AND model = ?", (model,)
            ).fetchone()
        return None if when is None else max(0.0, float(when) - time.time())

    def begin(self, work: Work) -> bool:
        """Write down that an entry is begun; False where it ended the process too often."""
        if work.starts >= MOST_STARTS:
            self.end(work, GIVEN_UP, f"the process ended {work.starts} times while it was at it")
            return False
        self._update("starts = starts + 1", work)
        return True

    def end(self, work: Work, state: str, reason: str = "") -> None:
        """Write down how an entry ended, for good."""
        self._update("starts = 0, state = ?, reason = ?", work, state, reason[:_LONGEST_REASON])

    def put_back(self, work: Work, reason: str) -> None:
        """Have an entry wait: it could not be tried, and that is no fault of its own."""
        self._update("starts = 0, reason = ?", work, reason[:_LONGEST_REASON])

    def fail(self, work: Work, reason: str, most_errors: int, retry_seconds: float) -> None:
        """Write down that an entry failed; it is tried again later, unless that was the last time.

        Args:
            retry_seconds: Until the second try; the wait doubles each time.
        """
        errors = work.errors + 1
        state = GIVEN_UP if errors >= most_errors else WAITING
        wait = min(retry_seconds * 2.0 ** min(errors - 1, 30), _LONGEST_WAIT_SECONDS)
        self._update(
            "starts = 0, errors = ?, state = ?, reason = ?, next_try = ?",
            work,
            errors,
            state,
            reason[:_LONGEST_REASON],
            time.time() + wait,
        )

    def try_again(self) -> int:
        """Have what was given up wait again; return how many."""
        with _in_words(self._path):
            return self._connection.execute(
                "UPDATE work SET state = 'waiting', errors = 0, starts = 0, next_try = 0 "
                "WHERE state = ?",
                (GIVEN_UP,),
            ).rowcount

    def note(self, name: str, value: str) -> None:
        """Keep a fact for the status."""
        with _in_words(self._path):
            self._connection.execute(
                "INSERT OR REPLACE INTO facts (name, value) VALUES (?, ?)",
                (name, value[:_LONGEST_REASON]),
            )

    def counts(self) -> QueueCounts:
        """Return what is in it."""
        with _in_words(self._path):
            link = self._connection
            states = dict(link.execute("SELECT state, count(*) FROM work GROUP BY state"))
            reasons = link.execute(
                "SELECT state, reason, count(*) FROM work WHERE reason != '' AND state != 'done' "
                "GROUP BY state, reason ORDER BY count(*) DESC, reason LIMIT 50"
            ).fetchall()
            facts = dict(link.execute("SELECT name, value FROM facts"))
        return QueueCounts({state: states.get(state, 0) for state in STATES}, tuple(reasons), facts)

    def _update(self, what: str, work: Work, *values: object) -> None:
        with _in_words(self._path):
            self._connection.execute(
                f"UPDATE work SET {what} WHERE id = ?",  # words of this file
                (*values, work.id),
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


def _make_private(path: Path) -> None:
    import os

    os.close(open_or_make(path, os.O_RDWR))  # SQLite's own would be readable for all


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        msg = (
            f"the gateway's queue {path} cannot be used ({type(error).__name__}): look for room on "
            "the disk and whose the file is; a damaged one may be moved away, what was answered "
            "is found in the archive."
        )
        raise RunError(msg) from None
