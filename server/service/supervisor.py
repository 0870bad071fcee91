"""The supervisor: keeps a server's processes alive, gives studies their turn, ends all with itself.

It is small and imports neither Flower nor torch. Its children are the link and, for each study that
runs, a process of its own. Whichever of them is killed is started again; if the supervisor itself
is killed the kernel ends the children, and the next supervisor goes on from what is on disk.
"""

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from wardround.common.errors import InputError, RunError
from wardround.common.files.lock import held_alone
from wardround.common.runtime.system.processes import Child, Pause, last_words
from wardround.server.link.address import LINK_FOLDER
from wardround.server.scheduling.folder import RunFolder
from wardround.server.settings import LOCK_FILE

logger = logging.getLogger(__name__)
LINK_LOG, STUDY_LOG = "link.log", "process.log"
_STOP, _REFUSED_CODES = "stop", (InputError.exit_code, RunError.exit_code)
_TICK_SECONDS, _LOOK_SECONDS = 0.2, 0.5
_STUDY_ENDS_SECONDS, _LINK_ENDS_SECONDS = 10.0, 5.0
_FULL_BYTES = 2**20  # less free than this is a full disk: a crash then has its reason
_MOST_FALLS = 5  # of a study's process, one after the other, in one round


class Turn(Protocol):
    """A run whose turn it is."""

    @property
    def run(self) -> str:
        """Its name."""


class Queue(Protocol):
    """What decides which study runs."""

    def next_run(self) -> Turn | None:
        """Return the run whose turn it is, None if there is none."""

    def started(self, run: str) -> None:
        """Note that a run's process was started."""

    def finished(self, run: str) -> None:
        """Note that a run has come to its end."""

    def failed(self, run: str, reason: str) -> None:
        """Note that a run cannot go on."""

    def stopped(self, run: str) -> None:
        """Note that a run's process was ended because that was wanted."""

    def wanted_state(self, run: str) -> str:
        """Return ``run`` or ``stop``."""


@contextmanager
def hold_server(folder: Path) -> Iterator[None]:
    """Hold a server folder: one supervisor at a time works on it.

    Raises:
        RunError: Another one does.
        OSError: The folder cannot be written.
    """
    msg = f"a server works in {folder} already: stop that one, or wait until it has ended."
    with held_alone(folder / LOCK_FILE, RunError(msg)):
        yield


@dataclass(slots=True)
class _Study:
    """A run with its process."""

    run: RunFolder
    child: Child | None = None
    pause: Pause = field(default_factory=Pause)
    round: int = -1
    falls: int = 0
    is_ending: bool = False


class Supervisor:
    """Works until it is told to stop; its thread is the one that its children end with."""

    def __init__(
        self, folder: Path, queue: Queue, on_tick: Callable[[], None] = lambda: None
    ) -> None:
        """Prepare to work on a server folder that :func:`hold_server` holds.

        Args:
            on_tick: Is called again and again, for what is due now and then.
        """
        self._folder, self._queue, self._look_after = folder, queue, on_tick
        self._link: Child | None = None
        self._link_pause = Pause()
        self._has_served = False
        self._studies: dict[str, _Study] = {}
        self._looked_at = 0.0

    def run(self, stopped: Callable[[], bool]) -> None:
        """Work until ``stopped`` says so, then end all children.

        Raises:
            RunError: The link cannot start, or the database cannot be used.
            OSError: A process cannot be started.
        """
        try:
            while not stopped():
                self._keep_link()
                for study in tuple(self._studies.values()):
                    self._keep_study(study)
                if time.monotonic() - self._looked_at >= _LOOK_SECONDS:
                    self._look_at_queue()
                self._look_after()
                time.sleep(_TICK_SECONDS)
        finally:
            self._end_all()

    def processes(self) -> dict[str, tuple[int, ...]]:
        """Return the ids of what runs, by what it is; another thread may ask."""
        studies = [study.child for study in tuple(self._studies.values())]
        link = self._link
        return {
            "supervisor": (os.getpid(),),
            "link": () if link is None else (link.pid,),
            "study": tuple(child.pid for child in studies if child is not None),
        }

    # --- The link -----------------------------------------------------------------------------

    def _keep_link(self) -> None:
        log = self._folder / LINK_FOLDER / LINK_LOG
        if self._link is not None:
            code = self._link.exit_code
            if code is None:
                self._has_served = self._has_served or self._link.has_settled
                return
            if code in _REFUSED_CODES and not self._has_served:
                msg = f"the server cannot start: {last_words(log)}"
                raise RunError(msg)
            logger.warning("the link ended (%d) and is started again: %s", code, last_words(log))
            self._link_pause.note_end(self._link)
            self._link = None
        if self._link_pause.is_over:
            self._link = self._child("link.process", [], log)

    # --- Studies ------------------------------------------------------------------------------

    def _look_at_queue(self) -> None:
        self._looked_at = time.monotonic()
        for study in self._studies.values():
            if self._queue.wanted_state(study.run.name) == _STOP and not study.is_ending:
                study.is_ending = True
                if study.child is not None:
                    study.child.ask_to_end()
        turn = self._queue.next_run()
        if turn is not None and turn.run not in self._studies:
            study = _Study(RunFolder(self._folder, turn.run))
            self._queue.started(turn.run)
            self._studies[turn.run] = study
            self._keep_study(study)

    def _keep_study(self, study: _Study) -> None:
        name, child = study.run.name, study.child
        if child is None:
            if study.is_ending:
                self._close(study, lambda: self._queue.stopped(name))
            elif study.pause.is_over:
                study.child = self._child("scheduling.process", [name], self._log_of(study))
        elif child.exit_code is not None:
            self._conclude(study, child, child.exit_code)
        elif study.is_ending and child.has_been_ending(_STUDY_ENDS_SECONDS):
            child.end(0.0)

    def _conclude(self, study: _Study, child: Child, code: int) -> None:
        name = study.run.name
        logger.info("study ended run=%s code=%d", name, code)
        if code == 0:
            self._close(study, lambda: self._queue.finished(name))
        elif study.is_ending:
            self._close(study, lambda: self._queue.stopped(name))
        elif code in _REFUSED_CODES:
            status = study.run.status()
            reason = status.message if status is not None else last_words(self._log_of(study))
            self._close(study, lambda: self._queue.failed(name, reason))
        else:
            self._on_child_exit(study, child)

    def _on_child_exit(self, study: _Study, child: Child) -> None:
        """Have a fallen process started again, unless it falls again and again at one place."""
        status = study.run.status()
        number = 0 if status is None else status.round
        study.falls = study.falls + 1 if number == study.round else 1
        study.round = number
        if study.falls < _MOST_FALLS:
            study.pause.note_end(child)
            study.child = None
            return
        reason = self._reason(study, number)
        self._close(study, lambda: self._queue.failed(study.run.name, reason))

    def _reason(self, study: _Study, number: int) -> str:
        """Say why a run is given up; on a full disk its log says nothing."""
        fact, log = (
            f"its process fell {study.falls} times after round {number}",
            self._log_of(study),
        )
        if shutil.disk_usage(log.parent).free < _FULL_BYTES:
            return f"{fact}: the disk of {log.parent} is full. Make room there and resume the run."
        return f"{fact}: look at {log}, mend that and resume the run."

    def _close(self, study: _Study, note: Callable[[], None]) -> None:
        del self._studies[study.run.name]
        note()

    def _log_of(self, study: _Study) -> Path:
        return study.run.path / STUDY_LOG

    # --- Processes ----------------------------------------------------------------------------

    def _child(self, module: str, arguments: list[str], log: Path) -> Child:
        command = [sys.executable, "-m", f"wardround.server.{module}", str(self._folder)]
        child = Child([*command, *arguments], os.environ, log)
        logger.info("started %s pid=%d", " ".join([module, *arguments]), child.pid)
        return child

    def _end_all(self) -> None:
        """End the studies, then what they talk to."""
        children = [one.child for one in self._studies.values() if one.child is not None]
        for child in children:
            child.ask_to_end()
        for child in children:
            child.end(_STUDY_ENDS_SECONDS)
        if self._link is not None:
            self._link.end(_LINK_ENDS_SECONDS)
