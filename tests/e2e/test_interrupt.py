"""Ctrl-C at a real process: exit code 130, a report, and a run that goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WARDROUND = (sys.executable, "-m", "wardround.cli")
PATIENCE_SECONDS = 90


def wait_for_round(run: Path, number: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    wanted = f"event=RoundDone stage=federated round={number} "
    log = run / "log.jsonl"
    while time.monotonic() < until and process.poll() is None:
        if log.exists() and wanted in log.read_text(encoding="utf-8"):
            return
        time.sleep(0.02)
    pytest.fail(f"round {number} did not come: {process.communicate()[1]}")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="there is no process group to interrupt")
@pytest.mark.parametrize("engine", ["in-process", "pool"])
def test_ctrl_c_leaves_a_report_and_a_run_that_goes_on(tiny_study, tmp_path: Path, engine: str):
    run = tmp_path / "run"
    words = ("simulate", str(tiny_study.study), "--out", str(run), "--engine", engine)
    # So many that a busy machine cannot finish before it is told to stop.
    rest = ("--rounds", "300", "--threads", "1", "--no-compare")
    process = subprocess.Popen(
        (*WARDROUND, *words, *rest),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_round(run, 2, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process at once
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert f"wardround simulate --resume {run}" in err
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert "tiny" in (run / "report.html").read_text(encoding="utf-8")
    again = subprocess.run(
        (*WARDROUND, "simulate", "--resume", str(run), "--json", *rest[2:4], *words[4:]),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["sites"][0]["site"] == "north"
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
