"""A real process that is told to end or killed: what it leaves, and how the run goes on."""

import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc"),
]
WARDROUND = (sys.executable, "-m", "wardround.cli")
PATIENCE_SECONDS = 90
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tiny_study, tmp_path: Path, hearing_signals) -> Iterator[Start]:
    """Start a simulation into ``run`` whose rounds are more than a busy machine can do."""
    started: list[subprocess.Popen[str]] = []

    def begin(*more: str, **options: object) -> subprocess.Popen[str]:
        words = ("simulate", str(tiny_study.study), "--out", str(tmp_path / "run"))
        given: dict[str, Any] = {"preexec_fn": hearing_signals, **options}
        process: subprocess.Popen[str] = subprocess.Popen(
            (*WARDROUND, *words, "--rounds", "120", "--threads", "1", *more),
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **given,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_round(run: Path, number: int, process: subprocess.Popen[str]) -> None:
    wanted = f"event=RoundDone stage=federated round={number} "
    log = run / "log.jsonl"
    assert wait_until(
        lambda: (
            (log.exists() and wanted in log.read_text(encoding="utf-8"))
            or process.poll() is not None
        )
    )
    assert process.poll() is None, process.communicate()[1]


def wait_until(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def traces_of(process: subprocess.Popen[str]) -> tuple[list[psutil.Process], bool]:
    """Return the processes that a process started, and whether they share memory."""
    family = psutil.Process(process.pid).children(recursive=True)
    maps = [Path(f"/proc/{one.pid}/maps").read_text() for one in family]
    assert not [text for text in maps if "/dev/shm/psm_" in text], "it outlives a kill of them all"
    return family, any("/memfd:wardround" in text for text in maps)


def is_gone(family: list[psutil.Process]) -> bool:
    return not [one for one in family if one.is_running() and one.status() != "zombie"]


def status_of(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["status"])


def page_of(run: Path) -> str:
    """Return what a reader of the report sees, without its marks and line breaks."""
    marked = (run / "report.html").read_text(encoding="utf-8")
    return " ".join(re.sub("<[^>]+>", " ", marked).split())


def resume(run: Path, *more: str) -> subprocess.CompletedProcess[str]:
    # As the farewell has it, with no more than the threads of the first try.
    words = ("simulate", "--resume", str(run), "--threads", "1", *more)
    return subprocess.run(
        (*WARDROUND, *words),
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


def on_terminal(*words: str) -> tuple[int, str]:
    """Run a command whose output is a terminal; return its exit code and what it showed."""
    ours, theirs = pty.openpty()
    # Whatever the tests themselves run under: a terminal that moves its cursor and may be coloured.
    environment = {**ENVIRONMENT, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        (*WARDROUND, *words), env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown: list[bytes] = []

    def listen() -> None:
        with suppress(OSError):  # how Linux says that the other end was closed
            while chunk := os.read(ours, 65536):
                shown.append(chunk)

    listener = threading.Thread(target=listen)
    listener.start()
    code = process.wait(PATIENCE_SECONDS)
    listener.join(PATIENCE_SECONDS)
    os.close(ours)
    return code, b"".join(shown).decode()


def digests_of(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    ("number", "engine"),
    [
        (signal.SIGINT, "in-process"),
        (signal.SIGINT, "pool"),
        pytest.param(signal.SIGTERM, "pool", marks=pytest.mark.long),  # Slurm, systemd
        pytest.param(signal.SIGHUP, "pool", marks=pytest.mark.long),  # a terminal that closes
    ],
)
def test_a_run_that_is_told_to_end_leaves_a_report_and_goes_on(
    start: Start, tmp_path: Path, number: signal.Signals, engine: str
):
    run = tmp_path / "run"
    process = start("--engine", engine, "--workers", "2", "--no-compare")
    wait_for_round(run, 2, process)
    family, share = traces_of(process)
    assert share == (engine == "pool")
    os.killpg(process.pid, number)  # as a terminal does: to every process at once
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "leaked" not in err
    assert f"wardround simulate --resume {run}" in err
    assert "training together: round 2 of 120, auroc " in err, "no terminal: a line a round"
    assert status_of(run) == "interrupted"
    assert f"Go on with: wardround simulate --resume {run}" in page_of(run)
    assert wait_until(lambda: is_gone(family))
    again = resume(run, "--engine", engine)
    assert again.returncode == 0, again.stderr
    assert "from round" in again.stderr
    assert "round 120 of 120" in again.stderr
    assert "is left out" not in (run / "log.jsonl").read_text("utf-8")
    assert status_of(run) == "finished"


def test_only_the_process_itself_told_to_end_ends_its_workers_too(start: Start, tmp_path: Path):
    process = start("--engine", "pool", "--workers", "2", "--no-compare")
    wait_for_round(tmp_path / "run", 2, process)
    family, _ = traces_of(process)
    assert len(family) >= 2
    process.terminate()  # `timeout` and `kill` signal one process
    assert process.wait(PATIENCE_SECONDS) == 130
    assert wait_until(lambda: is_gone(family))
    assert status_of(tmp_path / "run") == "interrupted"


def test_a_run_whose_process_was_killed_leaves_nothing_running_is_interrupted_and_goes_on(
    start: Start, tmp_path: Path
):
    run = tmp_path / "run"
    process = start("--engine", "pool", "--workers", "2", "--no-compare")
    wait_for_round(run, 2, process)
    family, share = traces_of(process)
    assert share
    assert len(family) >= 2
    process.kill()
    process.wait()
    assert wait_until(lambda: is_gone(family))
    made = subprocess.run(
        (*WARDROUND, "report", str(run)), env=ENVIRONMENT, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    page = page_of(run)
    assert "This run was interrupted after round " in page
    assert f"Go on with: wardround simulate --resume {run}" in page
    code, shown = on_terminal("simulate", "--resume", str(run), "--threads", "1")
    assert code == 0, shown
    assert "120/120" in shown
    assert status_of(run) == "finished"


def test_a_finished_run_is_never_changed(tiny_study, tmp_path: Path, wardround):
    run = tmp_path / "run"
    words = ("simulate", str(tiny_study.study), "--out", str(run), "--engine", "in-process")
    code, shown = on_terminal(*words, "--rounds", "2", "--no-compare")
    assert code == 0, shown
    before = digests_of(run)
    for more in ((), ("--json",), ("--quiet",)):
        again = wardround("simulate", "--resume", run, "--threads", "1", *more)
        assert again.code == 0, again.err
        assert "is finished: nothing is left to do" in again.err
    code, shown = on_terminal("simulate", "--resume", str(run))
    assert code == 0, shown
    assert digests_of(run) == before


def test_a_run_that_another_process_works_on_is_not_resumed(start: Start, tmp_path: Path):
    run = tmp_path / "run"
    process = start("--engine", "in-process", "--no-compare", "--rounds", "3000")
    wait_for_round(run, 2, process)
    assert status_of(run) == "running"
    second = resume(run)
    assert second.returncode == 2
    assert "another process works on" in second.stderr
    assert process.poll() is None
    assert status_of(run) == "running"


def test_a_run_in_the_background_does_not_hear_ctrl_c_but_ends_when_told(
    start: Start, tmp_path: Path
):
    def in_background() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    run = tmp_path / "run"
    process = start("--engine", "pool", "--workers", "2", "--no-compare", preexec_fn=in_background)
    wait_for_round(run, 2, process)
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGHUP)
    wait_for_round(run, 6, process)
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 130
    assert status_of(run) == "interrupted"
