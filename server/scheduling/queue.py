"""The queue of studies: which one is next, and what becomes of each.

What an operator wants of a run and what it is doing are two columns, changed in one transaction
each: whatever is killed in between, the next supervisor reads a state that a rule below covers.
The supervisor that holds the server folder's lock is the only one that runs studies.

A run whose process waits for its sites takes no turn: hospitals may need days to approve a study,
and another that is ready does not wait for that. It takes its turn when it begins its rounds, and
keeps it until it is over, however often its process falls.
"""

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from wardround.common.errors import InputError
from wardround.server.checkpoints.release import revoked_because
from wardround.server.scheduling.folder import RunFolder
from wardround.server.scheduling.store import (
    FAILED,
    FINISHED,
    NEXT_PLACE,
    QUEUED,
    RUN,
    RUNNING,
    STOP,
    STOPPED,
    RunRow,
    changing,
    get_run,
    reading,
    select_runs,
)

STOPPED_BY_OPERATOR = "stopped by an operator"
READY = "its sites are ready; it waits for another run to end"
MOST_WAITING = 4  # processes that wait for their sites; each takes some 300 MB
GIVES_WAY_SECONDS = 60.0  # after which a run that waits makes room, if more are queued


@dataclass(frozen=True, slots=True)
class QueuedRun:
    """A run whose turn it is.

    Attributes:
        run: Its name, which is that of its folder below ``runs``.
        study: The study's name.
    """

    run: str
    study: str
    digest: str


class StudyQueue:
    """The queue as a supervisor sees it; one thread uses it.

    A run that an earlier supervisor had started and not ended comes first, from its last commit.
    """

    def __init__(self, folder: Path, parallel_studies: int = 1) -> None:
        """Open the queue of a server folder.

        Args:
            parallel_studies: How many studies run at a time, beside those that wait for their
                sites.
        """
        self._folder, self._parallel = folder, parallel_studies
        self._begun: dict[str, float] = {}  # since when
        self._giving_way = ""

    def next_run(self) -> QueuedRun | None:
        """Return the run whose process is to be started; None if there is none for now.

        It stays the next one until :meth:`started` is told of it.

        Raises:
            RunError: The database cannot be used.
        """
        with reading(self._folder) as connection:
            waiting = select_runs(connection, "state IN (?, ?)", (RUNNING, QUEUED))
            turns = _turns(connection)
        left = [row for row in waiting if row.state == RUNNING and row.run not in self._begun]
        for row in left:
            if row.wanted == RUN:
                return QueuedRun(row.run, row.study, row.digest)
            self.stopped(row.run)
        if len(turns) >= self._parallel or len(self._begun.keys() - turns) >= MOST_WAITING:
            return None
        queued = [row for row in waiting if row.state == QUEUED and row.wanted == RUN]
        return QueuedRun(queued[0].run, queued[0].study, queued[0].digest) if queued else None

    def started(self, run: str) -> None:
        """Note that a run's process was started.

        Raises:
            InputError: There is no such run, or it is over.
            RunError: The database cannot be used.
        """
        with changing(self._folder) as connection:
            row = get_run(connection, run)
            if row.is_over:
                msg = f"run {run} is {row.state}: resume it before it is started."
                raise InputError(msg)
            connection.execute(
                "UPDATE runs SET state = ?, started = coalesce(started, ?), reason = '' "
                "WHERE run = ?",
                (RUNNING, time.time(), run),
            )
        self._begun[run] = time.monotonic()

    def finished(self, run: str) -> None:
        """Note that a run has come to its end.

        Raises:
            InputError: There is no such run.
            RunError: The database cannot be used.
        """
        self._end(run, FINISHED, "")

    def failed(self, run: str, reason: str) -> None:
        """Note that a run cannot go on; it is ``stopped`` if that was wanted anyway.

        Args:
            reason: Shown to operators: policy words, nothing about a patient.

        Raises:
            InputError: There is no such run.
            RunError: The database cannot be used.
        """
        self._end(run, FAILED, reason)

    def stopped(self, run: str) -> None:
        """Note that a run's process was ended because :meth:`wanted_state` said so.

        Where it was resumed in the meantime it is queued again.

        Raises:
            InputError: There is no such run.
            RunError: The database cannot be used.
        """
        self._end(run, STOPPED, STOPPED_BY_OPERATOR)

    def wanted_state(self, run: str) -> str:
        """Return what is wanted of a run: ``run`` or ``stop``; a run unknown has to stop.

        So has one that has waited for its sites for a while where others are queued and too many
        wait: it is queued again behind them, so that no number of studies that nobody approves
        keeps one that is ready from its turn.

        Raises:
            RunError: The database cannot be used.
        """
        with reading(self._folder) as connection:
            found = select_runs(connection, "run = ?", (run,))
            if not found or found[0].wanted == STOP:
                return STOP
            if self._gives_way(connection, run):
                self._giving_way = run
                return STOP
        return RUN

    def _gives_way(self, connection: sqlite3.Connection, run: str) -> bool:
        turns = _turns(connection)
        since = {one: began for one, began in self._begun.items() if one not in turns}
        if len(since) < MOST_WAITING or len(turns) >= self._parallel:
            return False
        if run != min(since, key=lambda one: since[one]):
            return False
        queued = select_runs(connection, "state = ? AND wanted = ?", (QUEUED, RUN))
        return bool(queued) and time.monotonic() - since[run] >= GIVES_WAY_SECONDS

    def _end(self, run: str, state: str, reason: str) -> None:
        with changing(self._folder) as connection:
            row = get_run(connection, run)
            if row.is_over:
                self._begun.pop(run, None)
                return
            if state == STOPPED and row.wanted == RUN:
                place = NEXT_PLACE if run == self._giving_way else "place"
                connection.execute(
                    f"UPDATE runs SET state = ?, place = {place}, reason = '' WHERE run = ?",
                    (QUEUED, run),
                )
            else:
                ends = STOPPED if state == FAILED and row.wanted == STOP else state
                connection.execute(
                    "UPDATE runs SET state = ?, reason = ?, ended = ? WHERE run = ?",
                    (ends, reason, time.time(), run),
                )
            connection.execute("DELETE FROM turns WHERE run = ?", (run,))
        self._begun.pop(run, None)
        self._giving_way = "" if run == self._giving_way else self._giving_way


def take_turn(folder: Path, run: str, parallel_studies: int) -> bool:
    """Have a run begin its rounds, if not enough others have; return whether it may.

    One that has its turn keeps it. Of several that are ready the one that was submitted first is
    the next.

    Raises:
        InputError: There is no such run.
        RunError: The database cannot be used.
    """
    with changing(folder) as connection:
        turns, row = _turns(connection), get_run(connection, run)
        if run in turns:
            return True
        if len(turns) >= parallel_studies or row.state != RUNNING or row.wanted != RUN:
            return False
        before = select_runs(
            connection, "state = ? AND wanted = ? AND place < ?", (RUNNING, RUN, row.place)
        )
        if any(one.run not in turns and _is_ready(folder, one.run) for one in before):
            return False
        connection.execute("INSERT INTO turns VALUES (?)", (run,))
        return True


def _turns(connection: sqlite3.Connection) -> set[str]:
    question = "SELECT turns.run FROM turns JOIN runs ON runs.run = turns.run WHERE state = ?"
    return {str(run) for (run,) in connection.execute(question, (RUNNING,))}


def _is_ready(folder: Path, run: str) -> bool:
    status = RunFolder(folder, run).status()
    return status is not None and status.message == READY


def stop_run(folder: Path, run: str) -> RunRow:
    """Want a run to stop; one that is queued is stopped at once.

    Raises:
        InputError: There is no such run, or it is over.
        RunError: The database cannot be used.
    """
    with changing(folder) as connection:
        row = get_run(connection, run)
        if row.is_over:
            msg = f"run {run} is {row.state}: there is nothing to stop."
            raise InputError(msg)
        connection.execute("UPDATE runs SET wanted = ? WHERE run = ?", (STOP, run))
        if row.state == QUEUED:
            connection.execute(
                "UPDATE runs SET state = ?, reason = ?, ended = ? WHERE run = ?",
                (STOPPED, STOPPED_BY_OPERATOR, time.time(), run),
            )
        return get_run(connection, run)


def resume_run(folder: Path, run: str) -> RunRow:
    """Queue a run that was stopped or that failed, behind all others; it has kept its commits.

    Raises:
        InputError: There is no such run, or it needs no resuming.
        RunError: The database cannot be used.
    """
    with changing(folder) as connection:
        row = get_run(connection, run)
        _refuse_to_resume(row)
        if reason := revoked_because(RunFolder(folder, row.run).path):
            msg = f"run {row.run} is not resumed: {reason}."
            raise InputError(msg)
        connection.execute("UPDATE runs SET wanted = ? WHERE run = ?", (RUN, run))
        if row.is_over:
            connection.execute(
                f"UPDATE runs SET state = ?, place = {NEXT_PLACE}, ended = NULL, reason = '' "
                "WHERE run = ?",
                (QUEUED, run),
            )
        return get_run(connection, run)


def _refuse_to_resume(row: RunRow) -> None:
    if row.state == FINISHED:
        msg = f"run {row.run} has finished: submit its study again for another run."
    elif not row.is_over and row.wanted == RUN:
        msg = f"run {row.run} is {row.state} already: there is nothing to resume."
    else:
        return
    raise InputError(msg)
