"""The process that tells trackers of a run: started with it, told its end, waited for a while."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MODULE = "wardround.simulations.experiment.tracking.follower"
PATIENCE_SECONDS = 30.0


@contextmanager
def tracked(
    folder: Path,
    user_file: Path | None,
    say: Callable[[str], None],
) -> Iterator[None]:
    """Have a user's trackers follow the run or series in a folder, which may be to come.

    Whatever happens to them, the run goes on; what could not be told is said when it is over.

    Args:
        user_file: As :func:`find_user_file` finds it; None has nothing tracked.
        say: Is told a sentence for each tracker that does not have everything.

    Raises:
        InputError: The user's file cannot be used; nothing was begun.
    """
    if user_file is None:
        yield
        return
    from wardround.common.monitoring.trackers.user_file import read_user_file

    if read_user_file(user_file).is_silent:
        yield
        return
    process = _start(folder, user_file, say)
    try:
        yield
    finally:
        if process is not None:
            for sentence in _finish(process, folder):
                say(sentence)


def _start(
    folder: Path, user_file: Path, say: Callable[[str], None]
) -> "subprocess.Popen[bytes] | None":
    from wardround.common.runtime.system.processes import start_apart

    command = [sys.executable, "-m", _MODULE, str(folder.resolve()), str(user_file)]
    try:
        return start_apart(command, {**os.environ, "OMP_NUM_THREADS": "1"})  # Ctrl-C is for the run
    except OSError as error:
        say(f"Nothing is tracked: its process cannot be started ({error.strerror}).")
        return None


def _finish(process: "subprocess.Popen[bytes]", folder: Path) -> tuple[str, ...]:
    """Let it tell the rest, and return what could not be told."""
    again = f"Tell the rest with: wardround track {shlex.quote(str(folder))}"
    try:
        said, _ = process.communicate(b"\n", timeout=PATIENCE_SECONDS)
        problems = json.loads(said)["problems"]
    except subprocess.TimeoutExpired:
        return (f"The trackers were not done {PATIENCE_SECONDS:g} s after the run. {again}",)
    except (ValueError, KeyError, TypeError):
        return (f"The trackers' process ended before the run did. {again}",)
    finally:
        with suppress(OSError):
            process.kill()
        process.wait()
    return tuple(f"{problem} {again}" for problem in problems)
