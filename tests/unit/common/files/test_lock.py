"""Of several processes one holds a lock, and it is free when that one has ended."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wardround.common.errors import RunError
from wardround.common.files.lock import held_alone, lock, open_lock

_HOLDER = """
import sys, time
from pathlib import Path
from wardround.common.files.lock import held_alone
with held_alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(path: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", _HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture(params=["file", "folder"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    if request.param == "folder":
        (tmp_path / "lock").mkdir()
    return tmp_path / "lock"


def test_a_lock_that_another_process_holds_is_refused_until_it_is_killed(place: Path) -> None:
    with held_elsewhere(place) as holder:
        with pytest.raises(RunError, match="taken"), held_alone(place, RunError("taken")):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with held_alone(place, RunError("taken")):
            pass
    assert place.exists()


def test_who_waits_goes_on_when_the_other_lets_go(place: Path) -> None:
    done: list[float] = []

    def wait() -> None:
        with held_alone(place):
            done.append(time.monotonic())

    with held_elsewhere(place) as holder:
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.2)
        assert not done
        ended = time.monotonic()
        holder.kill()
        waiting.join(10)
    assert done[0] >= ended


def test_a_lock_is_held_within_its_context_and_nobody_else_reads_the_file(tmp_path: Path) -> None:
    other = open_lock(tmp_path / "lock")
    with held_alone(tmp_path / "lock"):
        assert not lock(other, wait=False)
    assert lock(other, wait=False)
    os.close(other)
    assert (tmp_path / "lock").stat().st_mode & 0o077 == 0
