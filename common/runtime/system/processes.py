"""Child processes that end with their parent, however it ends, and are started again with care."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
PARENT = "WARDROUND_PARENT"  # the environment's name for who started a child
_LOOK_SECONDS = 1.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 30.0
_SETTLED_SECONDS, _STARTED_SECONDS = 60.0, 20.0
_LAST_BYTES = 4096
_LOG_BYTES = 10 * 2**20
_FIRST_TO_END = 500  # of the kernel's 1000, where memory runs out


def end_with_parent(parent: int | None = None) -> None:
    """Have this process killed when the one that started it ends; to be called first of all.

    Args:
        parent: The process that started it; without, the one that a :class:`Child` is told of.
    """
    if parent is None and PARENT in os.environ:
        parent = int(os.environ[PARENT])
    if parent is None:
        return
    if not _is_killed_with_parent():
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before this was said
        os._exit(1)


def be_first_to_end() -> None:
    """Have the kernel end this process, and not its parent, where memory runs out."""
    if sys.platform == "linux":
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(str(_FIRST_TO_END), encoding="ascii")


def leave_cores_to_others(niceness: int) -> None:
    """Let other processes go first, where the system knows such an order."""
    with suppress(OSError, AttributeError):
        os.nice(niceness)


def start_apart(
    command: Sequence[str], environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """Start a process that is spoken to over pipes, and that a terminal's Ctrl-C does not reach.

    Raises:
        OSError: It cannot be started.
    """
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def start_with_files(
    command: Sequence[str], descriptors: Sequence[int]
) -> "subprocess.Popen[bytes]":
    """Start a process that keeps these open files of this one, and no others.

    Raises:
        OSError: It cannot be started.
    """
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=descriptors)


def _is_killed_with_parent() -> bool:
    """Ask the kernel to kill this process when its parent ends; return whether it will."""
    if sys.platform != "linux":
        return False
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) == 0)
    except (OSError, AttributeError, TypeError):
        return False


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


class Child:
    """One child process, which writes to a file of its own."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log_path: Path
    ) -> None:
        """Start it.

        Raises:
            OSError: It cannot be started, or its log cannot be written.
        """
        _rotate(log_path)
        self.started_at = time.monotonic()
        self._asked_at = 0.0
        with log_path.open("ab", buffering=0) as log:
            self._process = subprocess.Popen(
                command,
                env={**environment, PARENT: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the parent, which ends it
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll()

    @property
    def has_settled(self) -> bool:
        """Whether it has been running for some seconds, so that it did start."""
        return time.monotonic() - self.started_at >= _STARTED_SECONDS

    def ask_to_end(self) -> None:
        """Tell it to finish what it does and end."""
        if self._process.poll() is None:
            self._asked_at = self._asked_at or time.monotonic()
            self._process.terminate()

    def has_been_ending(self, seconds: float) -> bool:
        """Whether it was told to end longer ago than this."""
        return self._asked_at > 0 and time.monotonic() - self._asked_at >= seconds

    def end(self, patience_seconds: float) -> int:
        """Wait until it has ended, and make it if it does not; return its exit code."""
        self.ask_to_end()
        try:
            return self._process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


class Pause:
    """How long to wait before a child is started again: longer each time, until one lasts."""

    def __init__(self) -> None:
        self.failures = 0
        self._until = 0.0

    def note_end(self, child: Child) -> None:
        """Note that a child has ended."""
        now = time.monotonic()
        lasted = now - child.started_at >= _SETTLED_SECONDS
        self.failures = 1 if lasted else self.failures + 1
        pause = _FIRST_PAUSE_SECONDS * 2 ** min(self.failures - 1, 10)
        self._until = now + min(pause, _LONGEST_PAUSE_SECONDS)

    @property
    def is_over(self) -> bool:
        """Whether the next may be started."""
        return time.monotonic() >= self._until


def last_words(log_path: Path) -> str:
    """Return the last line of a child's log."""
    try:
        with log_path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _LAST_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")


def _rotate(log_path: Path) -> None:
    """Keep a log from growing for ever: an old one is put aside, the one before that goes."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    if log_path.exists() and log_path.stat().st_size > _LOG_BYTES:
        log_path.replace(log_path.with_suffix(".old.log"))
