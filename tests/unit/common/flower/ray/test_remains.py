"""Of a Ray that was started here no process is left; those of others are; no Ray is started."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed: make install")
import psutil

from wardround.common.flower.ray import remains
from wardround.common.flower.ray.isolation import MARK
from wardround.common.flower.ray.remains import RayProcesses

DEAF = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)\n"
WAITS = f"import time; {DEAF}time.sleep(600)"
# Starts a worker and ends, as a raylet does that its workers outlive.
ORPHANS = (
    "import os, subprocess, sys; one = subprocess.Popen([sys.executable, '-c', sys.argv[1]], "
    "env=os.environ | {'RAY_RAYLET_PID': str(os.getpid())}, stdout=subprocess.PIPE); "
    "one.stdout.readline(); print(one.pid, flush=True)"
)


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LEAVE_SECONDS", "_TERMINATE_SECONDS"):
        monkeypatch.setattr(remains, name, 0.1)


@pytest.fixture
def started() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(stack: ExitStack, *words: str, **environment: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", *words],
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    stack.enter_context(process)
    stack.callback(process.kill)
    return process


def test_one_that_ignores_sigterm_is_ended(started: ExitStack, tmp_path: Path) -> None:
    daemon = start(started, WAITS, str(tmp_path / "session"))
    assert daemon.stdout is not None
    daemon.stdout.readline()
    RayProcesses(str(tmp_path)).end()
    assert not psutil.pid_exists(daemon.pid)


def test_one_whose_parent_has_gone_is_ended(started: ExitStack, tmp_path: Path) -> None:
    raylet = start(started, ORPHANS, WAITS, **{MARK: str(tmp_path)})
    worker = psutil.Process(int(raylet.communicate(timeout=20)[0]))
    assert worker.is_running()
    RayProcesses(str(tmp_path)).end()
    assert not worker.is_running()


def test_a_worker_whose_title_hides_its_environment_is_known_by_its_log(
    started: ExitStack, tmp_path: Path
) -> None:
    log = tmp_path / "worker.out"
    titled = {"executable": sys.executable, "env": {}, "stdin": subprocess.DEVNULL}
    with log.open("wb") as stream:
        worker = started.enter_context(
            subprocess.Popen(["ray::Actor.run", "-c", WAITS], stdout=stream, **titled)
        )
        other = started.enter_context(
            subprocess.Popen(["ray::Actor.run", "-c", WAITS], stdout=subprocess.PIPE, **titled)
        )
    started.callback(other.kill)
    started.callback(worker.kill)
    assert other.stdout is not None
    other.stdout.readline()
    RayProcesses(str(tmp_path)).end()
    assert not psutil.pid_exists(worker.pid)
    assert other.poll() is None


def test_those_of_another_ray_and_whatever_else_was_started_are_left_alone(
    started: ExitStack, tmp_path: Path
) -> None:
    mine, theirs = str(tmp_path / "mine"), str(tmp_path / "theirs")
    others = (
        start(started, WAITS, theirs),
        start(started, WAITS, **{MARK: theirs, "RAY_RAYLET_PID": "1"}),
        start(started, WAITS, RAY_RAYLET_PID="1"),  # of a cluster that was there before
        start(started, WAITS, **{MARK: mine}),  # a tool that this process started meanwhile
    )
    for one in others:
        assert one.stdout is not None
        one.stdout.readline()
    RayProcesses(mine).end()
    assert [one.poll() for one in others] == [None] * 4
