"""The daemon's end of its worker: one process, started again when it dies."""

import json
import logging
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from wardround.client.daemon.jobs import Done, Job
from wardround.common.errors import RunError
from wardround.common.runtime.system.processes import start_with_files

logger = logging.getLogger(__name__)
_MODULE = "wardround.client.daemon.worker_main"
_LOOK_SECONDS = 0.2  # how often a wait looks whether it is to end
_CALM_SECONDS = 10.0  # between two starts that nobody waits for
_TRIES = 2  # a second death over the same message is the message's, not the machine's
_LONGEST_LINE = 65_536  # one read; a line of a job's end has under 100 bytes


class AbandonedError(Exception):
    """The work was given up, because the daemon is to end."""


class WithdrawnError(Exception):
    """The work was given up, because the server wants nothing more of its run."""


class _DiedError(Exception):
    """The process ended."""


class WarmWorker:
    """A process that waits for work with everything loaded.

    It is to be made and used in one thread, whose end would be the process's end too.

    Args:
        kept: Descriptors that the process keeps open, e.g. of a lock.
        is_over: Asked while work is awaited; true gives it up.
    """

    def __init__(self, kept: tuple[int, ...], is_over: Callable[[], bool]) -> None:
        self._kept = kept
        self._is_over = is_over
        self.starts = 0
        self._begin()

    @property
    def process_id(self) -> int:
        """Of the process as it is now."""
        return self._process.pid

    def revive(self) -> None:
        """Start the process again if it has died while it had nothing to do."""
        if self._process.poll() is not None and time.monotonic() - self._began > _CALM_SECONDS:
            self._begin()

    def reply(self, job: Job, is_withdrawn: Callable[[], bool] = lambda: False) -> Done:
        """Have a message answered; whoever dies over it twice refuses it.

        Args:
            is_withdrawn: Asked while work is awaited; true ends the process in the middle of it,
                as its death would: what was charged stays charged.

        Raises:
            AbandonedError: The daemon is to end.
            WithdrawnError: The server wants nothing more of it.
            RunError: The worker cannot even refuse.
        """
        if self._process.poll() is not None:
            self._begin()
        for asked in (*(job,) * _TRIES, replace(job, refuse="died", again=False)):
            try:
                return self._ask(asked, is_withdrawn)
            except _DiedError:
                logger.warning("the worker ended over a message with %s", self._ending())
                self._begin()
        msg = "the worker process ends whatever it is asked: look at what it wrote to the log."
        raise RunError(msg)

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._channel.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        self._process.kill()
        self._process.wait()

    def _ending(self) -> str:
        """Return how the process ended: the number of a signal, or its exit code."""
        try:
            code = self._process.wait(_CALM_SECONDS)
        except subprocess.TimeoutExpired:
            return "its socket closed"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _begin(self) -> None:
        if self.starts:
            self.stop()
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = theirs.fileno()
            command = [sys.executable, "-m", _MODULE, str(descriptor), str(os.getpid())]
            self._process = start_with_files(command, (descriptor, *self._kept))
        self._channel = ours
        self._began = time.monotonic()
        self.starts += 1

    def _ask(self, job: Job, is_withdrawn: Callable[[], bool]) -> Done:
        with suppress(OSError):  # that it is dead is seen when its reply is awaited
            self._channel.sendall(job.to_line())
        line = b""
        while not line.endswith(b"\n"):
            line += self._note(is_withdrawn)
        return Done(**json.loads(line))

    def _note(self, is_withdrawn: Callable[[], bool]) -> bytes:
        while not select.select([self._channel], [], [], _LOOK_SECONDS)[0]:
            if self._is_over():
                raise AbandonedError
            if is_withdrawn():
                self._begin()
                raise WithdrawnError
        try:
            heard = self._channel.recv(_LONGEST_LINE)
        except OSError:
            heard = b""
        if not heard:
            raise _DiedError
        return heard
