"""A real server: its supervisor and its children, and the operator's commands beside it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wardround.server.installation import init_server

pytestmark = pytest.mark.slow
_PATIENCE_SECONDS = 90.0
_WARDROUND = [sys.executable, "-m", "wardround.cli"]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.fixture
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("s") / "server"
    init_server(place, "Demo", ["localhost"], "127.0.0.1", _free_port())
    return place


@contextmanager
def _running(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "start.log").open("ab") as log:
        process = subprocess.Popen(
            [*_WARDROUND, "server", "start", str(folder)], stdout=log, stderr=log
        )
    try:
        _until(lambda: _say(folder, "server", "status", folder, "--json").returncode == 0)
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _say(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_WARDROUND, *(str(word) for word in words)],
        capture_output=True,
        text=True,
        env={**os.environ, "WARDROUND_SERVER": str(folder)},
        check=False,
    )


def _state(folder: Path, run: str) -> str:
    said = _say(folder, "runs", "show", run, "--json")
    return str(json.loads(said.stdout)["summary"]["state"]) if said.returncode == 0 else said.stderr


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.3)


def _submit(folder: Path, name: str) -> str:
    study = folder.parent / f"{name}.toml"
    assert _say(folder, "study", "new", study).returncode == 0
    study.write_text(study.read_text().replace('"my-study"', f'"{name}"'), encoding="utf-8")
    said = _say(folder, "study", "submit", study, "--json")
    assert said.returncode == 0, said.stderr
    return str(json.loads(said.stdout)["run"])


def test_the_queue_survives_kill_9_and_studies_take_turns(folder) -> None:
    with _running(folder) as process:
        first, second = _submit(folder, "one"), _submit(folder, "two")
        _until(lambda: _state(folder, first) == "waiting for sites")
        assert _state(folder, second) == "queued"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert _say(folder, "runs", "list").returncode == 3
    with _running(folder) as process:
        _until(lambda: _state(folder, first) == "waiting for sites")
        assert _state(folder, second) == "queued"
        assert _say(folder, "runs", "stop", first).returncode == 0
        watched = _say(folder, "runs", "watch", first)
        assert watched.returncode == 3
        assert watched.stdout.splitlines()[-1] == "stopped by an operator"
        _until(lambda: _state(folder, second) == "waiting for sites")
        resumed = json.loads(_say(folder, "runs", "resume", first, "--json").stdout)
        assert resumed["state"] == "queued"
        assert _say(folder, "runs", "stop", second).returncode == 0
        _until(lambda: _state(folder, first) == "waiting for sites")
        process.terminate()
        assert process.wait(60) == 0
    assert not (folder / "operator.sock").exists()


def test_a_second_server_in_the_same_folder_is_refused_and_disturbs_nothing(folder) -> None:
    with _running(folder):
        again = _say(folder, "server", "start", folder)
        assert again.returncode == 3
        assert "works in" in again.stderr
        assert _say(folder, "server", "status", folder).returncode == 0
